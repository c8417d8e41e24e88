"""Tiny video files, made on the fly."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from PIL import Image

from alpro.datasets.transforms.preprocessing import PixelPreprocessing

SMALL = PixelPreprocessing(size=64)
"""What test clips are read with."""
GREY_STEP = 12
"""Frame ``i`` of a test clip is grey of level ``GREY_STEP * i``: frames tell their index."""


def write_clip(
    path: Path,
    *,
    num_frames: int = 16,
    height: int = 64,
    width: int = 64,
    codec: str = "libx264",
    group_size: int = 250,
) -> Path:
    """Write a clip whose frames are plain greys, getting lighter."""
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    frames[:] = (np.arange(num_frames) * GREY_STEP % 256)[:, None, None, None]
    return write_frames(path, frames, codec=codec, group_size=group_size)


def write_frames(
    path: Path, frames: np.ndarray, *, codec: str = "libx264", group_size: int = 250
) -> Path:
    """Write (T, H, W, 3) uint8 frames at 8 frames per second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = group_size
        stream.codec_context.max_b_frames = 2
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_image(path: Path, level: int, *, size: tuple[int, int] = (40, 30)) -> Path:
    """Write an image as frame ``level`` of a ``write_clip`` clip is, its folder as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (GREY_STEP * level,) * 3).save(path)
    return path


def indices_of(frames: np.ndarray) -> list[int]:
    """Which frames of a ``write_clip`` clip these (T, 3, H, W) are, by their mean level."""
    return np.rint(frames.mean(axis=(1, 2, 3)) / GREY_STEP).astype(int).tolist()
