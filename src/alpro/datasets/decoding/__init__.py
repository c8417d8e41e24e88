"""Frames from videos and images: one contract, three libraries for videos, and limits."""

from alpro.datasets.decoding.base import CutOffError, Decoder, FrameSelector, Video, VideoReadError
from alpro.datasets.decoding.decord_decoder import DecordDecoder
from alpro.datasets.decoding.factory import SandboxedDecoder, decoder_of, make_decoder
from alpro.datasets.decoding.image_files import (
    IMAGE_EXTENSIONS,
    MediaDecoder,
    check_frames,
    frames_in,
    is_image,
)
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.decoding.torchcodec_decoder import TorchCodecDecoder

__all__ = [
    "IMAGE_EXTENSIONS",
    "CutOffError",
    "Decoder",
    "DecordDecoder",
    "FrameSelector",
    "MediaDecoder",
    "SandboxedDecoder",
    "PyAVDecoder",
    "TorchCodecDecoder",
    "Video",
    "VideoReadError",
    "check_frames",
    "decoder_of",
    "frames_in",
    "is_image",
    "make_decoder",
]
