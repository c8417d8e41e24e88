"""Decoding in a process of its own, which is cut off where it takes too long or too much memory."""

from __future__ import annotations

import numpy as np

from alpro.datasets.decoding.base import CutOffError, Decoder, FrameSelector, Loader, Video
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.isolation.process import CallCutOffError, IsolatedProcess


class SandboxedDecoder:
    """Reads with another decoder, in an isolated process: files of any kind can do no harm.

    The frames are those of the other decoder. A selector that draws from a generator must copy it,
    as ``select_frames`` does: what it draws from here is a copy in any case.
    """

    def __init__(self, decoder: Decoder, *, seconds: float, megabytes: int) -> None:
        """Set limits.

        Args:
            decoder: reads; its module should import nothing heavy.
            seconds: that reading a video may take; 0: any number.
            megabytes: of memory that it may take, see ``IsolatedProcess``; 0: any number.
        """
        self.decoder = decoder
        prepare = decoder.load if isinstance(decoder, Loader) else None
        self._process = IsolatedProcess(seconds=seconds, megabytes=megabytes, prepare=prepare)

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        """Read the wanted frames, (T, 3, S, S) uint8; see ``Decoder.read``.

        Raises:
            CutOffError: a VideoReadError; it took too long, too much memory, or its process died.
            VideoReadError: whatever else is wrong with the file.
        """
        try:
            return self._process.call(_read, self.decoder, video, select, preprocessing)
        except CallCutOffError as error:
            raise CutOffError(f"cut off: {error}") from error

    def close(self) -> None:
        """End the process; it would end with its owner, too."""
        self._process.close()


def _read(
    decoder: Decoder, video: Video, select: FrameSelector, preprocessing: PixelPreprocessing
) -> np.ndarray:
    return decoder.read(video, select, preprocessing=preprocessing)
