"""Choosing a decoder by name."""

from __future__ import annotations

from alpro.datasets.decoding.base import Decoder
from alpro.datasets.decoding.decord_decoder import DecordDecoder
from alpro.datasets.decoding.image_files import MediaDecoder
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder, check_for_others
from alpro.datasets.decoding.sandboxed import SandboxedDecoder
from alpro.datasets.decoding.torchcodec_decoder import TorchCodecDecoder, check_torchcodec
from alpro.errors import InputError
from alpro.installation import has_package

DECODERS = ("auto", "pyav", "decord", "torchcodec")


def make_decoder(name: str, *, seconds: float = 0, megabytes: int = 0) -> Decoder:
    """Make the decoder of videos called ``auto``, ``pyav``, ``decord`` or ``torchcodec``.

    ``auto`` takes PyAV where it is installed, else decord. PyAV is faster on 26 real clips, and of
    all files that we have read every one that decord reads. Decord is not tried where it fails:
    broken files can end decord's process. Images are read with Pillow, whatever the name.

    Args:
        name: one of ``DECODERS``.
        seconds: that a video may take, 0: any number. With a limit of either kind, videos are read
            in a process of its own, see ``SandboxedDecoder``.
        megabytes: of memory that a video may take, 0: any number.

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
