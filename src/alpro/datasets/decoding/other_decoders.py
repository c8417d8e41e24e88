"""Decoding with decord, as the original does, or with torchcodec; both are optional."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from io import BytesIO

import numpy as np

from alpro.datasets.decoding.base import FrameSelector, Video, VideoReadError
from alpro.datasets.decoding.formats import require_video_signature
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames
from alpro.errors import InputError
from alpro.installation import AbsentPackageError, import_optional

_STORED_SIZE = -1  # decord's value for the size that frames are stored in
_SOURCE_PLACE = re.compile(  # in messages of decord, and of torchcodec
    r"\[\d\d:\d\d:\d\d\] \S+\.(cc|h):\d+: |^\w+, \S+\.(cpp|h):\d+, "
)
_REMEDY = (
    "`pip install torchcodec` in the version that fits torch (0.13 for torch 2.13), and FFmpeg's "
    "shared libraries (the package ffmpeg of Linux distributions); or choose another video_decoder"
)


class _CheckingDecoder:
    """Decoder whose library is given a file after a check alone, see `DecordDecoder`."""

    def __init__(self, check: Callable[[Video], None] | None = None) -> None:
        self.check = check

    def load(self) -> None:
        if self.check is not None:
            PyAVDecoder().load()

    def look_at(self, video: Video, *, library: str) -> None:
        if self.check is not None:
            self.check(video)
        require_video_signature(video, library=library)


class DecordDecoder(_CheckingDecoder):
    """Decord squashes (bilinear) and rotates while decoding; one thread per file.

    Where B-frames meet open groups of pictures, MPEG-TS or AVI, or an edit list cuts the beginning
    off, it returns other frames than those asked for; PyAV does not.

    Args:
        check: Looks at a file first and raises VideoReadError for what decord must not be given: it
            follows playlists, and ends the whole process where a damaged header declares billions
            of frames. None: without PyAV, only the file's first bytes are looked at.
    """

    def load(self) -> None:
        import decord  # noqa: F401

        super().load()

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        import decord  # optional: PyAV alone is enough

        # Keep files away from decord that could end its process.
        self.look_at(video, library="decord")
        # Open the file; decord resizes by itself if it can follow the policy.
        decord.logging.set_level(decord.logging.QUIET)
        try:
            source = BytesIO(video) if isinstance(video, bytes) else os.path.abspath(video)
            side = preprocessing.size if preprocessing.resized_by_decoder else _STORED_SIZE
            reader = decord.VideoReader(source, width=side, height=side, num_threads=1)
            num_video_frames = len(reader)
        # decord raises its own error for bad content and RuntimeError for what it cannot open.
        except (decord.DECORDError, RuntimeError) as error:
            raise VideoReadError(_reason("decord", error)) from error
        if num_video_frames < 1:
            raise VideoReadError("decord: no frames")
        # Decode the selected frames.
        indices = select(num_video_frames)
        try:
            frames = reader.get_batch(indices.tolist()).asnumpy()  # (T, H, W, 3)
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise VideoReadError(_reason("decord", error)) from error
        return preprocess_frames(frames.transpose(0, 3, 1, 2), preprocessing)  # (T, 3, S, S)


class TorchCodecDecoder(_CheckingDecoder):
    """Torchcodec squashes (bilinear) and rotates while decoding; one thread per file.

    It scans the file first (``seek_mode="exact"``); the other mode trusts the header, finds wrong
    frames where the rate varies, and was no quicker on real clips. With B-frames, open groups of
    pictures and MPEG-TS can end with an error, and AVI gives other frames than those asked for;
    PyAV reads them all.
    """

    def load(self) -> None:
        import torchcodec.decoders
        import torchcodec.transforms  # noqa: F401

        super().load()

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        from torchcodec.decoders import VideoDecoder  # optional: the other libraries are enough
        from torchcodec.transforms import Resize

        self.look_at(video, library="torchcodec")
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
            raise VideoReadError(_reason("torchcodec", error)) from error
        if num_video_frames < 1:
            raise VideoReadError("torchcodec: no frames")
        # Decode the selected frames.
        indices = select(num_video_frames)
        try:
            frames = reader.get_frames_at(indices.tolist()).data
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoReadError(_reason("torchcodec", error)) from error
        return preprocess_frames(frames.numpy(), preprocessing)  # (T, 3, S, S)


def check_torchcodec() -> None:
    """InputError where torchcodec is not installed or cannot be loaded."""
    try:
        import_optional("torchcodec.decoders")
    except AbsentPackageError as error:  # no FFmpeg, say, or not the torch it was built for
        raise InputError(f"video_decoder 'torchcodec': {error}; {_REMEDY}") from error


def _reason(library: str, error: Exception) -> str:
    # The first line without places in the library's sources; a native stack trace may follow it.
    lines = _SOURCE_PLACE.sub("", str(error)).strip().splitlines()
    return f"{library}: {lines[0] if lines else type(error).__name__}"
