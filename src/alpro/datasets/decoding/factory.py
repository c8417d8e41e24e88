"""Choosing a decoder by name."""

from __future__ import annotations

import numpy as np

from alpro.datasets.decoding.base import CutOffError, Decoder, FrameSelector, Loader, Video
from alpro.datasets.decoding.decord_decoder import DecordDecoder
from alpro.datasets.decoding.image_files import MediaDecoder
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder, check_for_others
from alpro.datasets.decoding.torchcodec_decoder import TorchCodecDecoder, check_torchcodec
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.installation import has_package
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
