"""Frames of stored videos, for galleries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from alpro.commands.cli import open_videos_of_flag
from alpro.commands.gallery.cards import SHARPNESS
from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.sampling import frame_indices
from alpro.errors import InputError

FrameReader = Callable[[str], list[Image.Image]]
"""Video id -> its frames, square."""

UNREADABLE = (120, 120, 120)


class StoredFrames:
    """Reads evenly spaced frames of stored videos."""

    def __init__(self, videos: Path, *, num_frames: int, side: int) -> None:
        """Open the videos.

        Args:
            videos: a folder, an LMDB or tar shards.
            num_frames: of each video.
            side: of the frames as they are shown, in pixels.
        """
        self._videos = open_videos_of_flag(videos)
        self._decoder = make_decoder("auto")
        self._num_frames, self._side = num_frames, SHARPNESS * side

    def __call__(self, video_id: str) -> list[Image.Image]:
        """Read frames; grey ones stand for a video that cannot be read.

        Raises:
            InputError: if there is no such video.
        """
        video = self._videos.fetch(video_id)
        if video is None:
            raise InputError(f"--videos {self._videos.root} holds no video {video_id!r}")
        side, num_frames = self._side, self._num_frames

        def evenly(num_video_frames: int) -> np.ndarray:
            return frame_indices(
                "segment", num_video_frames=num_video_frames, num_frames=num_frames, rng=None
            )

        try:
            frames = self._decoder.read(video, evenly, height=side, width=side)
        except VideoReadError:
            return [Image.new("RGB", (side, side), UNREADABLE)] * num_frames
        return [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]
