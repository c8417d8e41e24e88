"""Frames from video files: one contract, three libraries, and limits."""

from src.datasets.decoding.choice import DECODERS, make_decoder
from src.datasets.decoding.contract import (
    CutOffError,
    Decoder,
    FrameSelector,
    Video,
    VideoReadError,
)
from src.datasets.decoding.decord_decoder import DecordDecoder
from src.datasets.decoding.guarded import GuardedDecoder
from src.datasets.decoding.pyav_decoder import PyAVDecoder
from src.datasets.decoding.torchcodec_decoder import TorchCodecDecoder

__all__ = [
    "DECODERS",
    "CutOffError",
    "Decoder",
    "DecordDecoder",
    "FrameSelector",
    "GuardedDecoder",
    "PyAVDecoder",
    "TorchCodecDecoder",
    "Video",
    "VideoReadError",
    "make_decoder",
]
