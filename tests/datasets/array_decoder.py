"""The example of the page on decoders: a library of its own would take the place of NumPy."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from alpro.datasets.decoding import FrameSelector, Video, VideoReadError
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames


class ArrayDecoder:
    """Decoding of ``.npy`` files: V frames, (V, H, W, 3) uint8, upright, RGB."""

    def load(self) -> None:
        """Import the libraries that reading needs."""
        import numpy.lib.format  # noqa: F401

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        """Read the selected frames, (T, 3, S, S) uint8; see ``Decoder.read``."""
        # Open the file or its bytes, with the errors that the library has for bad content.
        try:
            frames = np.load(BytesIO(video) if isinstance(video, bytes) else video)
        except (OSError, ValueError, EOFError) as error:
            raise VideoReadError(f"numpy: {error}") from error
        if frames.ndim != 4 or not len(frames):
            raise VideoReadError("numpy: no frames")
        # Take the selected frames, then resize as the model's family says.
        chosen = frames[select(len(frames))].transpose(0, 3, 1, 2)  # (T, 3, H, W)
        return preprocess_frames(chosen, preprocessing)
