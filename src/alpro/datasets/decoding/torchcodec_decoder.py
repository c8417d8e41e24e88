"""Decoding with torchcodec, which is optional and needs FFmpeg's shared libraries."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np

from alpro.datasets.decoding.base import FrameSelector, Video, VideoReadError
from alpro.datasets.decoding.formats import require_video_signature
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames
from alpro.errors import InputError
from alpro.installation import AbsentPackageError, import_optional

_REMEDY = (
    "`pip install torchcodec` in the version that fits torch (0.13 for torch 2.13), and FFmpeg's "
    "shared libraries (the package ffmpeg of Linux distributions); or choose another video_decoder"
)
_SOURCE_PLACE = re.compile(r"^\w+, \S+\.(cpp|h):\d+, ")


class TorchCodecDecoder:
    """Torchcodec squashes (bilinear) and rotates while decoding; one thread per file.

    It scans the file first (``seek_mode="exact"``); the other mode trusts the header, finds wrong
    frames where the rate varies, and was no quicker on real clips. With B-frames, open groups of
    pictures and MPEG-TS can end with an error, and AVI gives other frames than those asked for;
    PyAV reads them all.

    Args:
        check: Looks at a file first, as of ``DecordDecoder``.
    """

    def __init__(self, check: Callable[[Video], None] | None = None) -> None:
        self.check = check

    def load(self) -> None:
        import torchcodec.decoders
        import torchcodec.transforms  # noqa: F401

        if self.check is not None:
            PyAVDecoder().load()

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        from torchcodec.decoders import VideoDecoder  # optional: the other libraries are enough
        from torchcodec.transforms import Resize

        if self.check is not None:
            self.check(video)
        require_video_signature(video, library="torchcodec")
        # Open the file; torchcodec resizes by itself if it can follow the policy.
        size = preprocessing.size
        try:
            reader = VideoDecoder(
                video if isinstance(video, bytes) else os.path.abspath(video),
                seek_mode="exact",
                num_ffmpeg_threads=1,
                transforms=[Resize((size, size))] if preprocessing.resized_by_decoder else None,
            )
            num_video_frames = len(reader)
        # torchcodec raises these for bad content, missing files and missing streams.
        except (RuntimeError, ValueError, TypeError) as error:
            raise VideoReadError(_reason(error)) from error
        if num_video_frames < 1:
            raise VideoReadError("torchcodec: no frames")
        # Decode the selected frames.
        indices = select(num_video_frames)
        try:
            frames = reader.get_frames_at(indices.tolist()).data
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoReadError(_reason(error)) from error
        return preprocess_frames(frames.numpy(), preprocessing)  # (T, 3, S, S)


def check_torchcodec() -> None:
    """InputError where torchcodec is not installed or cannot be loaded."""
    try:
        import_optional("torchcodec.decoders")
    except AbsentPackageError as error:  # no FFmpeg, say, or not the torch it was built for
        raise InputError(f"video_decoder 'torchcodec': {error}; {_REMEDY}") from error


def _reason(error: Exception) -> str:
    # The first line without the place in torchcodec's sources.
    lines = _SOURCE_PLACE.sub("", str(error)).strip().splitlines()
    return f"torchcodec: {lines[0] if lines else type(error).__name__}"
