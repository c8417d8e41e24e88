"""Decoders by name, sandboxed on request."""

from __future__ import annotations

from functools import partial

import numpy as np

from alpro.datasets.decoding.base import CutOffError, Decoder, FrameSelector, Loader, Video
from alpro.datasets.decoding.image_files import MediaDecoder
from alpro.datasets.decoding.other_decoders import (
    DecordDecoder,
    TorchCodecDecoder,
    check_torchcodec,
)
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder, check_for_others
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.installation import has_package
from alpro.isolation.process import CallCutOffError, IsolatedProcess


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
        try:
            return self._process.call(
                partial(self.decoder.read, preprocessing=preprocessing), video, select
            )
        except CallCutOffError as error:
            raise CutOffError(f"cut off: {error}") from error

    def close(self) -> None:
        """End the process; it would end with its owner, too."""
        self._process.close()


DECODERS = ("auto", "pyav", "decord", "torchcodec")


def make_decoder(name: str, *, seconds: float = 0, megabytes: int = 0) -> Decoder:
    """Make the decoder of videos called ``auto``, ``pyav``, ``decord`` or ``torchcodec``.

    ``auto`` takes PyAV where it is installed, else decord. PyAV is faster on 26 real clips, and has
    read every file that decord reads. Where PyAV fails decord is not tried: broken files can end
    its process. Images are read with Pillow, whatever the name. With a limit of time or memory per
    video (0: none), videos are decoded in an isolated process, see ``SandboxedDecoder``.

    Raises:
        InputError: for another name, or where the library is not installed or cannot be loaded.
    """
    decoder = MediaDecoder(_make_unlimited(name))
    if seconds or megabytes:
        return SandboxedDecoder(decoder, seconds=seconds, megabytes=megabytes)
    return decoder


def _make_unlimited(name: str) -> Decoder:
    if name not in DECODERS:
        raise InputError(f"video_decoder {name!r}: choose one of {', '.join(DECODERS)}")
    has_pyav = has_package("av")
    check = check_for_others if has_pyav else None
    if name == "torchcodec":
        check_torchcodec()
        return TorchCodecDecoder(check)
    if has_pyav and name in ("auto", "pyav"):
        return PyAVDecoder()
    if name in ("auto", "decord") and has_package("decord"):
        return DecordDecoder(check)
    packages = {"auto": "av or decord", "decord": "decord", "pyav": "av"}[name]
    raise InputError(
        f"video_decoder {name!r}: the library is not installed, or fails (see the log); "
        f"`pip install {packages}`"
    )
