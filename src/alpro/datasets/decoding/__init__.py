"""Frames from videos and images: one contract, three libraries for videos, and limits."""

from alpro.datasets.decoding.base import CutOffError, Decoder, FrameSelector, Video, VideoReadError
from alpro.datasets.decoding.factory import make_decoder

__all__ = ["CutOffError", "Decoder", "FrameSelector", "Video", "VideoReadError", "make_decoder"]
