"""Frames of stored videos, for galleries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from alpro.commands.cli import open_videos_of_flag
from alpro.commands.gallery.cards import SHARPNESS
from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError

FrameReader = Callable[[str], list[Image.Image]]
"""Video id -> its frames, square."""

UNREADABLE = (120, 120, 120)


def frame_reader(videos: Path, *, num_frames: int, side: int) -> FrameReader:
    """A reader of evenly spaced frames; grey ones stand for a video that cannot be read.

    It raises `InputError` if there is no such video.

    Args:
        videos: a folder, an LMDB or tar shards.
        num_frames: of each video.
        side: of the frames as they are shown, in pixels.
    """
    storage, decoder = open_videos_of_flag(videos), make_decoder("auto")
    size = SHARPNESS * side

    def evenly(num_video_frames: int) -> np.ndarray:
        return frame_indices(
            "segment", num_video_frames=num_video_frames, num_frames=num_frames, rng=None
        )

    def read(video_id: str) -> list[Image.Image]:
        video = storage.fetch(video_id)
        if video is None:
            raise InputError(f"--videos {storage.root} holds no video {video_id!r}")
        try:
            frames = decoder.read(video, evenly, preprocessing=PixelPreprocessing(size=size))
        except VideoReadError:
            return [Image.new("RGB", (size, size), UNREADABLE)] * num_frames
        return [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]

    return read
