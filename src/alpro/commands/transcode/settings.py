"""Settings of transcoding: size, frames kept, and encoder options for fast decoding."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

SHORTER_SIDE = 256
"""Pixels; the ``resize_size`` of pretraining, and more than the 224 of finetuning."""
KEY_FRAME_INTERVAL = 32  # frames
B_FRAMES = 7  # between two frames that others refer to
CRF = 21
PRESET = "medium"
INSTRUCTIONS = "SSE4.2"
"""Of x86-64 processors, what x264 uses. With AVX-512 its ``mbtree`` makes other bytes of a video
from time to time; up to AVX2 the bytes are those of SSE4.2, which takes 1.1 times as long."""
PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow"),
)
_X86_64 = ("x86_64", "amd64")

KeepFrame = Callable[[Fraction], bool]
"""Whether to keep the next frame of a video, shown at so many seconds."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Settings of prepared videos.

    Most frames are B-frames that no other refers to, so that a reader skips those it does not want:
    between two key frames it decodes every eighth frame, and the wanted ones. There is no loop
    filter and no arithmetic coding, which take longer than all else. Of what was tried on 26 real
    clips, this read 16 frames 5 times as fast as decord does from the originals, in 0.95 of their
    size, with frames that differ by 1.4 grey levels (41.5 dB).
    """

    shorter_side: int = SHORTER_SIDE
    """Pixels; smaller videos keep their size. 0: all keep it."""
    fps: Fraction | None = None
    """Frames kept of a second, at most; None: all."""
    frame_share: Fraction | None = None
    """Share of the frames that is kept, evenly spread; None: all."""
    key_frame_interval: int = KEY_FRAME_INTERVAL
    b_frames: int = B_FRAMES
    crf: int = CRF
    """Constant rate factor of x264: 0 loses nothing, 51 most."""
    preset: str = PRESET
    """Effort of x264 for smaller files: ``veryfast``, ``medium``, ``slow``, ..."""

    def as_record(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        return {
            name: str(value) if isinstance(value, Fraction) else value
            for name, value in asdict(self).items()
        }

    def size(self, *, width: int, height: int) -> tuple[int, int]:
        """Width and height after preparing: even, as h264 stores colours, and never larger."""
        shorter = min(width, height)
        scale = Fraction(1)
        if self.shorter_side and shorter > self.shorter_side:
            scale = Fraction(self.shorter_side, shorter)
        return _even(width * scale, most=width), _even(height * scale, most=height)

    def encoder_options(self) -> dict[str, str]:
        """Options of libx264: in one thread, and so that a video's bytes are always the same."""
        # A fixed pattern of frames: no scene cuts, adaptive or referenced B-frames.
        parameters: dict[str, int | str] = {
            "keyint": self.key_frame_interval,
            "min-keyint": self.key_frame_interval,
            "scenecut": 0,
            "bframes": min(self.b_frames, max(self.key_frame_interval - 2, 0)),
            "b-adapt": 0,
            "b-pyramid": "none",
        }
        if platform.machine().lower() in _X86_64:
            parameters["asm"] = INSTRUCTIONS
        return {
            "preset": self.preset,
            "tune": "fastdecode",
            "crf": str(self.crf),
            "threads": "1",
            "x264-params": ":".join(f"{name}={value}" for name, value in parameters.items()),
        }

    def rate(self, rate: Fraction) -> Fraction:
        """Frames per second after preparing, of a video that has so many."""
        if self.fps is not None:
            return min(self.fps, rate)
        return rate * (self.frame_share or 1)

    def keeping(self) -> KeepFrame:
        """Predicate over the frames of one video in order; it always keeps the first."""
        if self.fps is not None:
            return _keeping_rate(self.fps)
        return _keeping_share(self.frame_share or Fraction(1))

    def position_before(self, position: int) -> int:
        """Index in the original of a kept frame; only for a share of frames, or all."""
        return math.ceil(position / (self.frame_share or Fraction(1)))


def _even(length: Fraction, *, most: int) -> int:
    return max(2, min(2 * round(length / 2), most // 2 * 2))


def _keeping_share(share: Fraction) -> KeepFrame:
    """Frames 0, 1/share, 2/share, ..., rounded up."""
    seen = kept = 0

    def keep(_seconds: Fraction) -> bool:
        nonlocal seen, kept
        due = seen >= math.ceil(kept / share)
        seen += 1
        kept += due
        return due

    return keep


def _keeping_rate(fps: Fraction) -> KeepFrame:
    """The first frame of each ``1 / fps`` seconds."""
    last = -1

    def keep(seconds: Fraction) -> bool:
        nonlocal last
        period = math.floor(seconds * fps + _TIME_SLACK)
        if period <= last:
            return False
        last = period
        return True

    return keep


_TIME_SLACK = Fraction(1, 100)
"""Of a period: containers round times to milliseconds."""
