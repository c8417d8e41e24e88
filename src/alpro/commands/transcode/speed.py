"""Decoding speed of prepared videos compared with their originals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import TypeVar

import numpy as np

from alpro.commands.parallel import Failure, run_isolated
from alpro.commands.transcode.collection import Limits
from alpro.commands.transcode.settings import Preparation
from alpro.datasets.decoding import make_decoder
from alpro.datasets.decoding.base import Video
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.storage.base import VideoStorage
from alpro.datasets.transforms.preprocessing import PixelPreprocessing

NUM_FRAMES = 16
FRAME_SIZE = 224
ROUNDS = 3

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Pair:
    """A video before and after preparing."""

    before: Video
    after: Video


@dataclass(frozen=True, slots=True)
class Reading:
    """Time to read the same moments of a video before and after preparing."""

    seconds_before: float
    seconds_after: float
    difference: float | None
    """Of the frames, in grey levels on average; None if they may be different ones."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Decoding speed of a sample of videos, at least one."""

    readings: list[Reading]

    def before(self) -> float:
        """Clips a second, of the originals."""
        return 1 / mean(reading.seconds_before for reading in self.readings)

    def after(self) -> float:
        """Clips a second, of the prepared videos."""
        return 1 / mean(reading.seconds_after for reading in self.readings)

    def difference(self) -> float | None:
        """Mean difference of the frames, in grey levels."""
        known = [r.difference for r in self.readings if r.difference is not None]
        return mean(known) if known else None


def measure_speed(
    originals: VideoStorage,
    prepared: VideoStorage,
    video_ids: Sequence[str],
    *,
    preparation: Preparation,
    limits: Limits,
) -> Speed | None:
    """Read frames of videos before and after, in turn; one process, one thread.

    Videos that cannot be read, perhaps because of the limits, are left out; ``None`` if all are.
    """
    pairs = []
    for video_id in video_ids:
        before, after = originals.fetch(video_id), prepared.fetch(video_id)
        if before is not None and after is not None:
            pairs.append(Pair(before, after))
    outcomes = run_isolated(
        partial(read_pair, preparation=preparation),
        pairs,
        num_workers=1,
        seconds=2 * ROUNDS * limits.seconds,
        megabytes=limits.megabytes,
    )
    readings = [outcome for _, outcome in outcomes if not isinstance(outcome, Failure)]
    return Speed(readings) if readings else None


def read_pair(pair: Pair, *, preparation: Preparation) -> Reading:
    """Read the same moments of both videos ``ROUNDS`` times; the fastest time of each counts.

    Raises:
        VideoReadError: one of them cannot be read.
    """
    # The prepared video decides which moments both are read at.
    num_after = 0

    def of_prepared(num_video_frames: int) -> np.ndarray:
        nonlocal num_after
        num_after = num_video_frames
        return frame_indices(
            "nlvl_uniform", num_video_frames=num_video_frames, num_frames=NUM_FRAMES, rng=None
        )

    def of_original(num_video_frames: int) -> np.ndarray:
        positions = of_prepared(num_after).tolist()
        if preparation.fps is None:
            before = [preparation.position_before(position) for position in positions]
        else:
            before = [position * num_video_frames // num_after for position in positions]
        return np.minimum(before, num_video_frames - 1)

    decoder = make_decoder("auto")
    read = partial(decoder.read, preprocessing=PixelPreprocessing(size=FRAME_SIZE))
    # Take turns; the fastest round counts.
    before_seconds, after_seconds = [], []
    for _ in range(ROUNDS):
        seconds, after = _timed(lambda: read(pair.after, of_prepared))
        after_seconds.append(seconds)
        seconds, before = _timed(lambda: read(pair.before, of_original))
        before_seconds.append(seconds)
    # With a new frame rate the frames may be different ones.
    difference = None
    if preparation.fps is None:
        difference = float(np.abs(before.astype(np.int16) - after).mean())
    return Reading(min(before_seconds), min(after_seconds), difference)


def _timed(work: Callable[[], Value]) -> tuple[float, Value]:
    start = time.perf_counter()
    value = work()
    return time.perf_counter() - start, value
