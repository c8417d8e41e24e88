"""Frames from video files: one contract, three libraries, and limits."""

from alpro.datasets.decoding.base import (
    CutOffError,
    Decoder,
    FrameSelector,
    Video,
    VideoReadError,
)
from alpro.datasets.decoding.decord_decoder import DecordDecoder
from alpro.datasets.decoding.factory import DECODERS, make_decoder
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.decoding.sandboxed import SandboxedDecoder
from alpro.datasets.decoding.torchcodec_decoder import TorchCodecDecoder

__all__ = [
    "DECODERS",
    "CutOffError",
    "Decoder",
    "DecordDecoder",
    "FrameSelector",
    "SandboxedDecoder",
    "PyAVDecoder",
    "TorchCodecDecoder",
    "Video",
    "VideoReadError",
    "make_decoder",
]
