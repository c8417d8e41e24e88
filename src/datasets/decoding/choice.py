"""Choosing a decoder by name, and letting one take over where another fails."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from src.datasets.decoding.contract import Decoder, FrameSelector, VideoReadError
from src.datasets.decoding.decord_decoder import DecordDecoder
from src.datasets.decoding.pyav_decoder import PyAVDecoder, check_declared_length
from src.errors import InputError

DECODERS = ("auto", "decord", "pyav")


class FallbackDecoder:
    """Reads with the first decoder, and with the second what the first cannot read."""

    def __init__(self, first: Decoder, second: Decoder) -> None:
        self.first = first
        self.second = second

    def read(self, path: Path, select: FrameSelector, *, height: int, width: int) -> np.ndarray:
        """Read the wanted frames, (T, 3, H, W) uint8; see ``Decoder.read``."""
        try:
            return self.first.read(path, select, height=height, width=width)
        except VideoReadError:
            return self.second.read(path, select, height=height, width=width)


def make_decoder(name: str) -> Decoder:
    """Make the decoder called ``auto`` (what is installed, decord first), ``decord`` or ``pyav``.

    Raises:
        InputError: for another name, or where the library is not installed.
    """
    if name not in DECODERS:
        raise InputError(f"video_decoder {name!r}: choose one of {', '.join(DECODERS)}")
    has_decord = find_spec("decord") is not None
    has_pyav = find_spec("av") is not None
    if has_decord and name in ("auto", "decord"):
        decord = DecordDecoder(check_declared_length if has_pyav else None)
        return FallbackDecoder(decord, PyAVDecoder()) if name == "auto" and has_pyav else decord
    if has_pyav and name in ("auto", "pyav"):
        return PyAVDecoder()
    packages = {"auto": "decord or av", "decord": "decord", "pyav": "av"}[name]
    raise InputError(
        f"video_decoder {name!r}: the library is not installed; `pip install {packages}`"
    )
