"""Frames from videos and images: one contract, three libraries for videos, and limits."""

from __future__ import annotations

from functools import partial

import numpy as np

from alpro.datasets.decoding.base import (
    CutOffError,
    Decoder,
    FrameSelector,
    Loader,
    Video,
    VideoReadError,
)
from alpro.datasets.decoding.image_files import MediaDecoder
from alpro.datasets.decoding.other_decoders import (
    DecordDecoder,
    TorchCodecDecoder,
    check_torchcodec,
)
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder, check_for_others
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.installation import DECODERS, has_package
from alpro.isolation.process import CallCutOffError, IsolatedProcess

__all__ = ["Decoder", "FrameSelector", "Video", "VideoReadError", "decoder_of", "make_decoder"]


class SandboxedDecoder:
    """Decodes in an isolated process, within limits: no file can do harm.

    The frames are those of the wrapped decoder, whose module should import nothing heavy. The
    process draws from a copy of a selector's generator, so that selectors must copy it anyway.
    """

    def __init__(self, decoder: Decoder, *, seconds: float, megabytes: int) -> None:
        """Set limits of time and memory per video, see ``IsolatedProcess``; 0 for none."""
        self.decoder = decoder
        prepare = decoder.load if isinstance(decoder, Loader) else None
        self._process = IsolatedProcess(seconds=seconds, megabytes=megabytes, prepare=prepare)

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        read = partial(self.decoder.read, preprocessing=preprocessing)
        try:
            return self._process.call(read, video, select)
        except CallCutOffError as error:
            raise CutOffError(f"cut off: {error}") from error

    def close(self) -> None:
        """End the process; it would end with its owner, too."""
        self._process.close()


def make_decoder(name: str, *, seconds: float = 0, megabytes: int = 0) -> Decoder:
    """Make the decoder of videos of that name, or the one that ``auto`` stands for.

    Images are read with Pillow, whatever the name. With a limit of time or memory per video (0:
    none), videos are decoded in an isolated process, see ``SandboxedDecoder``.

    Raises:
        InputError: for another name, or where the library is not installed or cannot be loaded.
    """
    decoder = MediaDecoder(_make_unlimited(name))
    if seconds or megabytes:
        return SandboxedDecoder(decoder, seconds=seconds, megabytes=megabytes)
    return decoder


def decoder_of(name: str) -> str:
    """Return the decoder that a name stands for: ``auto`` is PyAV, or decord where that is absent.

    PyAV is faster on 26 real clips, and reads every file that decord reads.
    """
    return name if name != "auto" else "pyav" if has_package("av") else "decord"


def _make_unlimited(name: str) -> Decoder:
    library = decoder_of(name)
    if library not in DECODERS:
        raise InputError(f"video_decoder {name!r}: choose one of auto, {', '.join(DECODERS)}")
    check = check_for_others if name != "auto" and has_package("av") else None
    if library == "torchcodec":
        check_torchcodec()
        return TorchCodecDecoder(check)
    if has_package(DECODERS[library]):
        return PyAVDecoder() if library == "pyav" else DecordDecoder(check)
    packages = "av or decord" if name == "auto" else DECODERS[name]
    raise InputError(
        f"video_decoder {name!r}: the library is not installed, or fails (see the log); "
        f"`pip install {packages}`"
    )
