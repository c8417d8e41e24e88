"""Pictures and clips of moments, made in an isolated process.

Frames are upright and keep their aspect ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.decoding.pyav_decoder import open_with_pyav
from alpro.datasets.decoding.windows import frames_from

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

STRIP_HEIGHT = 120  # pixels
STRIP_FRAMES = 4
PREVIEW_HEIGHT = 360
PREVIEW_RATE = 30  # frames per second, at most
_QUARTER_TURN_DEGREES = 90
_JPEG_QUALITY = 80
_CODEC = {"crf": "26", "preset": "veryfast", "movflags": "+faststart"}


def strip_of(video: Path, start: float, end: float) -> bytes:
    """JPEG of a few frames side by side, from `start` to `end` in seconds.

    Raises:
        VideoReadError: no frame of that time can be read.
    """
    from PIL import Image

    wanted = [start + (end - start) * (i + 0.5) / STRIP_FRAMES for i in range(STRIP_FRAMES)]
    frames: list[np.ndarray] = []
    with open_with_pyav(video) as opened:
        for frame, _, until in frames_from(opened, seek=start):
            while len(frames) < STRIP_FRAMES and wanted[len(frames)] < until:
                frames.append(_upright(frame, height=STRIP_HEIGHT))
            if len(frames) == STRIP_FRAMES:
                break
    if not frames:
        raise VideoReadError("no frame of that time comes out")
    picture, file = Image.fromarray(np.concatenate(frames, axis=1)), BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def write_preview(video: Path, start: float, end: float, target: Path) -> None:
    """Write a part of a video as H.264 that every browser plays, without sound.

    Raises:
        VideoReadError: no frame of that time can be read.
    """
    import av

    with open_with_pyav(video) as opened, av.open(str(target), "w", format="mp4") as output:
        stream = None
        for pixels, time in _shown(opened, start, end):
            if stream is None:
                stream = output.add_stream("libx264", rate=PREVIEW_RATE, options=_CODEC)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = round(1000 * time), Fraction(1, 1000)
            output.mux(stream.encode(picture))
        if stream is None:
            raise VideoReadError("no frame of that time comes out")
        output.mux(stream.encode())


def _shown(opened: object, start: float, end: float) -> Iterator[tuple[np.ndarray, float]]:
    """Frames from a time to another, at most `PREVIEW_RATE` a second, with seconds after it."""
    due = -math.inf
    for frame, shown, until in frames_from(opened, seek=start):  # type: ignore[arg-type]
        if shown >= end:
            return
        if until > start and shown >= due:
            due = shown + 1 / PREVIEW_RATE - 1e-3
            yield _upright(frame, height=PREVIEW_HEIGHT), max(shown - start, 0.0)


def _upright(frame: VideoFrame, *, height: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB of even sides; H is the height, or that of the frame if it is lower."""
    turns = round(frame.rotation / _QUARTER_TURN_DEGREES) % 4
    tall = frame.width if turns % 2 else frame.height
    scale = min(1.0, height / tall)
    width, high = (max(2, round(side * scale / 2) * 2) for side in (frame.width, frame.height))
    scaled = frame.reformat(width, high, "rgb24")
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), k=turns))
