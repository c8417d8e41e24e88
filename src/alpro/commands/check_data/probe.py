"""Inspection of one video or image: header, content, and whether frames can be decoded.

Runs in a process of its own, which a broken file may end: nothing heavy is imported but PyAV, at
once, so that its memory is not counted as a video's.

Shapes: ``T`` frames, ``S`` side of the small frames that are measured.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alpro.commands.check_data.ffmpeg_stream import describe, errors_of_ffmpeg
from alpro.commands.check_data.sources import Sampling
from alpro.datasets.decoding import Video, VideoReadError, make_decoder
from alpro.datasets.decoding.image_files import frames_in, is_image, open_image
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.images import ImageReader
from alpro.datasets.storage import VideoStorage, open_videos
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError, listed, pluralize

Verdict = Literal["readable", "missing", "empty_file", "unreadable", "cut_off"]

SMALL = PixelPreprocessing(size=64)
"""Of the frames that are measured."""
SMALL_IMAGE = replace(SMALL, resize="center_square", interpolation="bicubic")
WHOLE_DIGEST_BYTES = 4 << 20  # files up to this size are hashed as a whole
MOST_FRAMES = 16  # about, of a folder with more bytes in all, that are hashed
SAMPLE_BYTES = 1 << 20  # of each of the parts of larger files that are hashed
SAMPLED = "sampled:"
"""Prefix of the digest of a larger file."""


@dataclass(frozen=True, slots=True)
class Item:
    """One video or image to inspect."""

    key: str
    """Its place: the storage and the id."""
    video_id: str
    storage: Path | None
    """Folder, LMDB or shards; of images the folder that paths begin in."""
    path: Path | None
    """Its file, where it has one of its own, or the folder of its frames."""
    extension: str
    is_image: bool


@dataclass(slots=True)
class Probe:
    """Measurements of a video or image; None for what could not be measured."""

    verdict: Verdict
    reason: str = ""
    num_bytes: int | None = None
    digest: str | None = None
    """Of the content."""
    container: str | None = None
    codec: str | None = None
    width: int | None = None
    """Before rotation, in pixels."""
    height: int | None = None
    rotation: int = 0
    """Degrees."""
    fps: float | None = None
    declared_frames: int | None = None
    declared_seconds: float | None = None
    num_frames: int | None = None
    seconds: float | None = None
    """From the first frame to the end of the last."""
    trouble: str = ""
    """Description of partial damage."""
    brightness: float | None = None
    """Mean grey level of the frames that were read, 0 to 255, as the next ones."""
    contrast: float | None = None
    """Standard deviation of grey levels within a frame, of the frame with the greatest."""
    change: float | None = None
    """Mean difference from a frame to the next one read, the greatest; None for one frame."""


def probe_item(item: Item, *, sampling: Sampling, full: bool) -> Probe:
    """Inspect a video or image.

    Args:
        item: which.
        sampling: the frames that are decoded.
        full: decode all others as well.

    Raises:
        OSError: the disk cannot be read.
        MemoryError: it takes too much memory; or an error that comes from one.
    """
    probe = Probe("readable")
    try:
        _look(probe, item, sampling=sampling, full=full)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  # no file may end the check, whatever a library does
        if _is_out_of_memory(error):
            raise
        name = "" if isinstance(error, VideoReadError | InputError) else f"{type(error).__name__}: "
        probe.verdict, probe.reason = "unreadable", f"{name}{error}"
    return probe


def _is_out_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _look(probe: Probe, item: Item, *, sampling: Sampling, full: bool) -> None:
    video = item.path or _fetched(item)
    is_folder = isinstance(video, Path) and not item.is_image and os.path.isdir(video)
    if video is None or (isinstance(video, Path) and not is_folder and not os.path.isfile(video)):
        probe.verdict, probe.reason = "missing", f"no file for it in {item.storage or Path()}"
        return
    size = _size_of(video)
    probe.num_bytes = size
    if size == 0:
        probe.verdict, probe.reason = "empty_file", "0 bytes"
        return
    probe.digest = digest_of(video, size=size)
    if item.is_image:
        _look_at_image(probe, video)
    else:
        _look_at_video(probe, video, sampling=sampling, full=full)


def _fetched(item: Item) -> Video | None:
    assert item.storage is not None
    return _opened(item.storage, item.extension).fetch(item.video_id)


@lru_cache(maxsize=8)
def _opened(storage: Path, extension: str) -> VideoStorage:
    return open_videos(storage, extension=extension)


def digest_of(video: Video, *, size: int, whole: bool = False) -> str:
    """A hash of a file's content: of small ones whole, of others a few parts and the size.

    Args:
        video: the file.
        size: its bytes.
        whole: all of it, however large.
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(video, Path) and video.is_dir():
        is_small = whole or size <= WHOLE_DIGEST_BYTES
        frames = frames_in(video)
        for frame in frames if is_small else frames[:: 1 + len(frames) // MOST_FRAMES]:
            digest.update(frame.read_bytes())
        return digest.hexdigest() if is_small else f"{SAMPLED}{size}:{digest.hexdigest()}"
    with io.BytesIO(video) if isinstance(video, bytes) else video.open("rb") as file:
        if whole or size <= WHOLE_DIGEST_BYTES:
            while block := file.read(SAMPLE_BYTES):
                digest.update(block)
            return digest.hexdigest()
        # Evenly spaced parts, the first and the last bytes included.
        num_parts = WHOLE_DIGEST_BYTES // SAMPLE_BYTES
        for part in range(num_parts):
            file.seek(part * (size - SAMPLE_BYTES) // (num_parts - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return f"{SAMPLED}{size}:{digest.hexdigest()}"


def _size_of(video: Video) -> int:
    """Bytes of a file, or of all frames in a folder."""
    if isinstance(video, bytes):
        return len(video)
    files = frames_in(video) if video.is_dir() else [video]
    return sum(file.stat().st_size for file in files)


def _look_at_image(probe: Probe, video: Video) -> None:
    assert isinstance(video, Path)
    frames = ImageReader(None, SMALL_IMAGE, random_crop=False).read(str(video), rng=None)
    with open_image(video) as image:
        probe.width, probe.height = image.size
        probe.codec = str(image.format).lower()
    _measure(probe, frames, np.zeros(1))


def _look_at_video(probe: Probe, video: Video, *, sampling: Sampling, full: bool) -> None:
    # Header and packet counts; some decoders read files that PyAV cannot open.
    troubles = []
    is_still = is_image(video)
    of_images = is_still or (isinstance(video, Path) and video.is_dir())
    try:
        described = _describe_images(video, full=full) if of_images else describe(video, full=full)
        for name, value in described.items():
            if name == "trouble":
                troubles.append(value)
            else:
                setattr(probe, name, value)
    except VideoReadError as error:
        if _is_out_of_memory(error):
            raise
        troubles.append(str(error))  # another library may still read it
    # Decode the frames that training would read.
    select = _Selector(sampling)
    with errors_of_ffmpeg() as errors:
        frames = make_decoder(sampling.decoder).read(video, select, preprocessing=SMALL)
    # Decoders may correct the frame count while they read.
    if len(set(select.counts)) > 1:
        message = f"{pluralize(select.counts[0], 'frame')} expected, {select.counts[-1]:,} decoded"
        troubles.append(message)
    if errors and not any(troubles):  # decoders read on where a packet is broken
        troubles.append(f"{errors[0]} ({pluralize(len(errors), 'message')} while decoding)")
    if (not full or not probe.num_frames) and not is_still:
        probe.num_frames = select.counts[-1]
    probe.trouble = "; ".join(filter(None, troubles))
    _measure(probe, frames, select.chosen)


def _describe_images(video: Video, *, full: bool) -> dict[str, Any]:
    """Fields of a `Probe` of an image, or of all frames in a folder; decoded where ``full``.

    Raises:
        VideoReadError: the first one is damaged.
    """
    files: Sequence[Video] = [video] if isinstance(video, bytes) else frames_in(video)
    sizes, damaged = Counter[tuple[int, int]](), []
    for file in files:
        try:
            with open_image(file) as image:
                if full:
                    image.load()
                sizes[image.size] += 1
                codec = str(image.format).lower()
        except VideoReadError as error:
            damaged.append(f"{file.name if isinstance(file, Path) else ''}: {error}")
    if not sizes:
        raise VideoReadError(damaged[0])
    troubles = [f"{pluralize(len(damaged), 'damaged frame')} ({damaged[0]})"] if damaged else []
    if len(sizes) > 1:
        shown = listed([f"{wide} x {tall}" for (wide, tall), _ in sizes.most_common()])
        troubles.append(f"frames of {len(sizes)} sizes ({shown})")
    (width, height), _ = sizes.most_common(1)[0]
    trouble = "; ".join(troubles)
    return {"codec": codec, "width": width, "height": height, "trouble": trouble}


class _Selector:
    """Chooses frames as training does, and records the frame counts it is called with."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.counts: list[int] = []
        self.chosen = np.zeros(0, np.int64)

    def __call__(self, num_video_frames: int) -> np.ndarray:
        self.counts.append(num_video_frames)
        self.chosen = frame_indices(
            self.sampling.strategy,
            num_video_frames=num_video_frames,
            num_frames=self.sampling.num_frames,
            sample_rate=self.sampling.sample_rate,
            rng=np.random.default_rng(0),
        )
        return self.chosen


def _measure(probe: Probe, frames: np.ndarray, chosen: np.ndarray) -> None:
    """Set brightness, contrast and change of the (T, 3, S, S) frames."""
    grey = frames.mean(axis=1, dtype=np.float32)  # (T, S, S)
    probe.brightness = _rounded(grey.mean())
    probe.contrast = _rounded(grey.std(axis=(1, 2)).max())
    different = np.flatnonzero(np.diff(chosen))
    if len(different):
        change = np.abs(grey[different + 1] - grey[different]).mean(axis=(1, 2))
        probe.change = _rounded(change.max())


def _rounded(value: Any) -> float:
    return round(float(value), 2)
