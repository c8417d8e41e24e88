"""Contract of video decoders.

Shapes: ``T`` wanted frames, ``S`` side of the square frames in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from alpro.datasets.transforms.preprocessing import PixelPreprocessing

Video = Path | bytes
"""A file, or the bytes of one; or the folder of a video's frames."""
FrameSelector = Callable[[int], np.ndarray]
"""Maps the number of frames in a video to the (T,) indices of those wanted, in any order."""


class VideoReadError(Exception):
    """A file yields no frames; the message gives the reason, the caller knows the file."""


class CutOffError(VideoReadError):
    """The decoding was ended: it took too long or too much memory, or its process died."""


class Decoder(Protocol):
    """Reads chosen frames of a video; stateless, and can be sent to worker processes."""

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        """Read the selected frames, rotated as the file says, then resized, and cropped or padded.

        If the file's frame count proves wrong, ``select`` is called again.

        Returns:
            (T, 3, S, S) uint8, RGB, 0 to 255.

        Raises:
            VideoReadError: whatever is wrong with the file; CutOffError where a limit was set.
        """


@runtime_checkable
class Loader(Protocol):
    """A decoder whose libraries take time and memory to import, which no video is to blame for."""

    def load(self) -> None:
        """Import the libraries that reading needs."""
