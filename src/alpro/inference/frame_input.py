"""Frames of videos as a model sees them: chosen, and preprocessed.

T: frames, H, W: pixels, S: side of the squares that the model sees.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.decoding.windows import MEGABYTES, SECONDS_PER_REQUEST, WindowPlan, WindowReader
from alpro.datasets.frame_sampling import select_frames
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames
from alpro.errors import InputError
from alpro.evaluation.encoding import chunks

Video: TypeAlias = "str | Path | np.ndarray"
"""A file, or (T, H, W, 3) uint8 RGB frames."""
BATCH_SIZE = 8
SILENT = 8  # batches without a progress bar


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
        self.sampling, self.preprocessing = sampling, preprocessing
        self.window_plan = partial(
            WindowPlan, preprocessing=preprocessing, num_frames=num_frames, sampling=sampling
        )
        self._select = partial(
            select_frames,
            strategy=sampling,
            num_frames=num_frames,
            num_clips=1,
            sample_rate=sample_rate,
            rng=None,
        )
        self._decoder = make_decoder("auto", seconds=SECONDS_PER_REQUEST, megabytes=MEGABYTES)

    def batches(
        self,
        videos: Sequence[Video],
        *,
        start: float | None = None,
        end: float | None = None,
        size: int = BATCH_SIZE,
    ) -> Iterator[np.ndarray]:
        """Frames, (`size`, T, 3, S, S) uint8, of videos, or of a part of each, in seconds.

        A progress bar is shown on a terminal, if they are many.

        Raises:
            InputError: one cannot be read, ends before the start, or has no seconds.
        """
        pieces = chunks(len(videos), size=size)
        hidden = len(pieces) <= SILENT or not sys.stderr.isatty()
        with closing(WindowReader()) as reader:  # starts a process if there is a part to read
            for piece in tqdm(pieces, desc="videos", disable=hidden, leave=False):
                yield np.stack([self._frames_of(videos[i], start, end, reader) for i in piece])

    def _frames_of(
        self, video: Video, start: float | None, end: float | None, reader: WindowReader
    ) -> np.ndarray:
        if isinstance(video, np.ndarray):
            if start is not None or end is not None:
                raise InputError("start and end are seconds of a file. Cut arrays by their frames.")
            return self._frames_of_array(video)
        try:
            if start is None and end is None:
                return self._decoder.read(
                    Path(video), self._select, preprocessing=self.preprocessing
                )
            part: Any = {"start": start or 0.0, "end": math.inf if end is None else end}
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
        chosen = frames[self._select(len(frames))]
        return preprocess_frames(chosen.transpose(0, 3, 1, 2), self.preprocessing)
