"""Choosing a decoder by name, and letting one take over where another fails."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec

import numpy as np

from src.datasets.decoding.contract import Decoder, FrameSelector, Loader, Video, VideoReadError
from src.datasets.decoding.decord_decoder import DecordDecoder
from src.datasets.decoding.guarded import GuardedDecoder
from src.datasets.decoding.pyav_decoder import PyAVDecoder, check_declared_length
from src.datasets.decoding.torchcodec_decoder import TorchCodecDecoder, check_torchcodec
from src.errors import InputError

DECODERS = ("auto", "pyav", "decord", "torchcodec")


class FallbackDecoder:
    """Reads with the first decoder, and with the second what the first cannot read."""

    def __init__(self, first: Decoder, second: Decoder) -> None:
        self.first = first
        self.second = second

    def load(self) -> None:
        """Import what reading calls for, as far as it is there: the second may never be used."""
        if isinstance(self.first, Loader):
            self.first.load()
        if isinstance(self.second, Loader):
            with suppress(ImportError, OSError):  # raised again by reading, where it is called for
                self.second.load()

    def read(self, video: Video, select: FrameSelector, *, height: int, width: int) -> np.ndarray:
        """Read the wanted frames, (T, 3, H, W) uint8; see ``Decoder.read``."""
        try:
            return self.first.read(video, select, height=height, width=width)
        except VideoReadError as error:
            if isinstance(error.__cause__, MemoryError):  # the second would need as much
                raise
            first_error = error
        try:
            return self.second.read(video, select, height=height, width=width)
        except VideoReadError as error:
            reasons = dict.fromkeys([str(first_error), str(error)])  # often the same
            raise VideoReadError("; ".join(reasons)) from error


def make_decoder(name: str, *, seconds: float = 0, megabytes: int = 0) -> Decoder:
    """Make the decoder called ``auto``, ``pyav``, ``decord`` or ``torchcodec``.

    ``auto`` takes what is installed of PyAV and decord: PyAV first, which is the faster one on 26
    real clips and reads more files (AV1), decord where it fails.

    Args:
        name: one of ``DECODERS``.
        seconds: that a video may take, 0: any number. With a limit of either kind, videos are read
            in a process of its own, see ``GuardedDecoder``.
        megabytes: of memory that a video may take, 0: any number.

    Raises:
        InputError: for another name, or where the library is not installed or cannot be loaded.
    """
    decoder = _make_unlimited(name)
    if seconds or megabytes:
        return GuardedDecoder(decoder, seconds=seconds, megabytes=megabytes)
    return decoder


def _make_unlimited(name: str) -> Decoder:
    if name not in DECODERS:
        raise InputError(f"video_decoder {name!r}: choose one of {', '.join(DECODERS)}")
    if name == "torchcodec":
        check_torchcodec()
        return TorchCodecDecoder()
    has_decord = find_spec("decord") is not None
    has_pyav = find_spec("av") is not None
    decord = DecordDecoder(check_declared_length if has_pyav else None)
    if has_pyav and name in ("auto", "pyav"):
        pyav = PyAVDecoder()
        return FallbackDecoder(pyav, decord) if name == "auto" and has_decord else pyav
    if has_decord and name in ("auto", "decord"):
        return decord
    packages = {"auto": "av or decord", "decord": "decord", "pyav": "av"}[name]
    raise InputError(
        f"video_decoder {name!r}: the library is not installed; `pip install {packages}`"
    )
