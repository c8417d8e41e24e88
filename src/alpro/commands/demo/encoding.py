"""Encoding of rendered clips as MP4 and of images as JPEG, each written atomically."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import av
import numpy as np
from PIL import Image

from alpro.commands.demo.planning import Clip, Pair
from alpro.commands.demo.stills import Still
from alpro.commands.demo.texts import IMAGE_SUFFIX
from alpro.commands.demo.trajectories import FPS

CODEC = {"crf": "20", "preset": "veryfast", "threads": "1", "bf": "0", "mbtree": "0"}
"""Looking ahead (``bf``, ``mbtree``) made x264 write different bytes from equal frames."""
JPEG_QUALITY = 90
ITEMS_PER_JOB = 16

Item = Pair | Still
"""Unit of rendering: a pair of clips, or an image."""


def video_path(folder: Path, clip: Clip) -> Path:
    """Path of a clip in the dataset's folder."""
    return folder / "videos" / f"{clip.name}.mp4"


def image_path(folder: Path, still: Still) -> Path:
    """Path of an image in the dataset's folder."""
    return folder / "images" / f"{still.name}{IMAGE_SUFFIX}"


def is_encoded(item: Item, *, folder: Path) -> bool:
    """Whether the dataset's folder has it already."""
    if isinstance(item, Still):
        return image_path(folder, item).exists()
    return all(video_path(folder, clip).exists() for clip in item.clips)


def encode_all(items: Sequence[Item], *, folder: Path, num_workers: int) -> Iterator[None]:
    """Draw and write everything, in processes; yields after each."""
    encode = partial(_encode, folder=folder)
    if num_workers == 1 or len(items) <= ITEMS_PER_JOB:
        yield from map(encode, items)
        return
    with ProcessPoolExecutor(num_workers) as pool:
        yield from pool.map(encode, items, chunksize=ITEMS_PER_JOB)


def _encode(item: Item, *, folder: Path) -> None:
    if isinstance(item, Still):
        encode_image(item.render(), path=image_path(folder, item))
        return
    for clip, frames in zip(item.clips, item.render(), strict=True):
        encode_video(frames, path=video_path(folder, clip))


def encode_video(frames: np.ndarray, *, path: Path) -> None:
    """Write uint8 RGB frames (T, S, S, 3) as h264."""
    partial_path = path.with_suffix(".part")
    with av.open(str(partial_path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CODEC)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    partial_path.replace(path)


def encode_image(picture: np.ndarray, *, path: Path) -> None:
    """Write a uint8 RGB picture (S, S, 3) as JPEG."""
    partial_path = path.with_suffix(".part")
    Image.fromarray(picture).save(partial_path, format="JPEG", quality=JPEG_QUALITY)
    partial_path.replace(path)
