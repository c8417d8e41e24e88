"""What every decoder promises.

Shapes: ``T`` wanted frames, ``S`` side of the square frames in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from alpro.datasets.transforms.preprocessing import PixelPreprocessing

Video = Path | bytes
"""What a decoder reads: a file, or the bytes of one; or the folder of a video's frames."""

FrameSelector = Callable[[int], np.ndarray]
"""From the number of frames in a video to the (T,) indices of those wanted, in any order."""


class VideoReadError(Exception):
    """No frames can be had from this file; the message says why, the caller knows the file."""


class CutOffError(VideoReadError):
    """The decoding was ended: it took too long or too much memory, or its process died."""


class Decoder(Protocol):
    """Reads chosen frames of a video. Has no state, and can be sent to worker processes."""

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        """Read the wanted frames, rotated as the file says, then resized, and cropped or padded.

        Args:
            video: The video file, or its bytes: the frames are the same.
            select: Chooses frames; may be asked more than once where the first count was wrong.
            preprocessing: gives S and the resize policy; values stay 0 to 255, in RGB.

        Returns:
            (T, 3, S, S) uint8, RGB.

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
