"""Frames from video files: one contract, two libraries, and one taking over from the other."""

from src.datasets.decoding.choice import DECODERS, FallbackDecoder, make_decoder
from src.datasets.decoding.contract import Decoder, FrameSelector, VideoReadError
from src.datasets.decoding.decord_decoder import DecordDecoder
from src.datasets.decoding.pyav_decoder import PyAVDecoder

__all__ = [
    "DECODERS",
    "Decoder",
    "DecordDecoder",
    "FallbackDecoder",
    "FrameSelector",
    "PyAVDecoder",
    "VideoReadError",
    "make_decoder",
]
