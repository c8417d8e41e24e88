"""What every decoder promises.

Shapes: ``T`` wanted frames, ``H`` and ``W`` their height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

Video = Path | bytes
"""What a decoder reads: a file, or the bytes of one."""

FrameSelector = Callable[[int], np.ndarray]
"""From the number of frames in a video to the (T,) indices of those wanted, in any order."""


class VideoReadError(Exception):
    """No frames can be had from this file; the message says why, the caller knows the file."""


class CutOffError(VideoReadError):
    """The decoding was ended: it took too long or too much memory, or its process died."""


class Decoder(Protocol):
    """Reads chosen frames of a video. Has no state, and can be sent to worker processes."""

    def read(self, video: Video, select: FrameSelector, *, height: int, width: int) -> np.ndarray:
        """Read the wanted frames, rotated as the file says and squashed to the size asked for.

        Args:
            video: The video file, or its bytes: the frames are the same.
            select: Chooses frames; may be asked more than once where the first count was wrong.
            height: H, in pixels.
            width: W, in pixels.

        Returns:
            (T, 3, H, W) uint8, RGB.

        Raises:
            VideoReadError: whatever is wrong with the file.
        """
        ...


@runtime_checkable
class Loader(Protocol):
    """What decoders also are whose libraries take time and memory: no video is to blame for it."""

    def load(self) -> None:
        """Import what reading will call for."""
        ...
