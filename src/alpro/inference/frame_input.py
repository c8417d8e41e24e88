"""Frames of videos as a model sees them: chosen, and preprocessed.

T: frames, H, W: pixels, S: side of the squares that the model sees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.decoding.windows import MEGABYTES, SECONDS_PER_REQUEST, WindowPlan, WindowReader
from alpro.datasets.frame_sampling import frame_indices, select_frames
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames
from alpro.errors import InputError

Video: TypeAlias = "str | Path | np.ndarray"
"""A file, or (T, H, W, 3) uint8 RGB frames."""


class FrameInput:
    """Reader of videos for one model."""

    def __init__(
        self,
        *,
        num_frames: int,
        sampling: str,
        sample_rate: int,
        preprocessing: PixelPreprocessing,
    ) -> None:
        self.num_frames, self.sampling = num_frames, sampling
        self.preprocessing = preprocessing
        self._select = partial(
            select_frames,
            strategy=sampling,
            num_frames=num_frames,
            num_clips=1,
            sample_rate=sample_rate,
            rng=None,
        )
        self._decoder = make_decoder("auto", seconds=SECONDS_PER_REQUEST, megabytes=MEGABYTES)

    def window_plan(self, **options: Any) -> WindowPlan:
        """Make a plan of windows with as many frames; `options` are of the plan."""
        return WindowPlan(
            preprocessing=self.preprocessing,
            num_frames=self.num_frames,
            sampling=self.sampling,
            **options,
        )

    def frames(
        self, videos: Sequence[Video], *, start: float | None = None, end: float | None = None
    ) -> np.ndarray:
        """(N, T, 3, S, S) uint8 frames of videos, or of a part of each, in seconds.

        Raises:
            InputError: one cannot be read, or ends before the start.
        """
        with closing(WindowReader()) as reader:  # starts a process if there is a part to read
            return np.stack([self._frames_of(one, start, end, reader) for one in videos])

    def _frames_of(
        self, video: Video, start: float | None, end: float | None, reader: WindowReader
    ) -> np.ndarray:
        if isinstance(video, np.ndarray):
            return self._frames_of_array(video)
        try:
            if start is None and end is None:
                return self._decoder.read(
                    Path(video), self._select, preprocessing=self.preprocessing
                )
            part = {"start": start or 0.0, "end": math.inf if end is None else end}
            window = next(reader.read(video, plan=self.window_plan(window=math.inf, **part)))
        except (VideoReadError, ValueError) as error:
            raise InputError(f"{video}: {error}") from error
        if window.end <= window.start:
            raise InputError(
                f"{video}: ends after {window.end:g} s, before the start at {window.start:g} s"
            )
        return window.frames

    def _frames_of_array(self, frames: np.ndarray) -> np.ndarray:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
            raise InputError(
                f"frames of shape {frames.shape} and type {frames.dtype}: expected (T, H, W, 3) "
                "uint8, RGB"
            )
        chosen = frame_indices(
            self.sampling, num_video_frames=len(frames), num_frames=self.num_frames, rng=None
        )
        return preprocess_frames(frames[chosen].transpose(0, 3, 1, 2), self.preprocessing)
