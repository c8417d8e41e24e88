from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.video_datasets import (
    FrameAugmentation,
    TrainingSample,
    TrainingVideos,
    UnreadableVideo,
)
from alpro.tasks.pretraining.annotations import CaptionedItem
from alpro.tasks.pretraining.batches import ValidationPairs


class RandomSource:
    """Shows what it draws; "broken" is unreadable."""

    root: Path | None = None

    def read(self, video_id: str, *, rng: np.random.Generator | None) -> np.ndarray:
        if video_id == "broken":
            raise VideoReadError("no frames")
        assert rng is not None
        return np.full((1, 2, 3, 4, 4), rng.integers(256), np.uint8)


def _cut(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    changed = frames[..., :2, :2].copy()
    changed[:, 1] = rng.integers(256)
    return changed


def _items(*video_ids: str) -> list[CaptionedItem]:
    return [CaptionedItem(video_id, ("a dog",), "video") for video_id in video_ids]


def _pairs(
    *, seed: int = 3, adjust: FrameAugmentation | None = None
) -> ValidationPairs[CaptionedItem]:
    items = _items("a", "broken", "c", "d")
    return ValidationPairs(items, RandomSource(), adjust=adjust, seed=seed)


def _drawn(sample: TrainingSample[CaptionedItem] | UnreadableVideo) -> tuple[int, int]:
    assert isinstance(sample, TrainingSample)
    return int(sample.frames[0, 0, 0, 0, 0]), int(sample.frames[0, 0, 1, 0, 0])


def test_a_sample_is_a_function_of_seed_and_index() -> None:
    pairs = _pairs(adjust=_cut)
    assert len(pairs) == 4
    sample = pairs[0, 2]
    assert isinstance(sample, TrainingSample)
    assert sample.item.video_id == "c"
    assert sample.key == (0, 2)
    assert sample.frames.shape == (1, 2, 3, 2, 2)
    again = pickle.loads(pickle.dumps(pairs))[5, 2]
    assert isinstance(again, TrainingSample)
    assert again.key == (0, 2)
    assert _drawn(again) == _drawn(sample)
    others = [pairs[0, 0], pairs[0, 3], _pairs(adjust=_cut, seed=4)[0, 2]]
    assert len({_drawn(sample), *map(_drawn, others)}) == 4


def test_adjusting_draws_from_a_stream_of_its_own() -> None:
    plain, adjusted = _drawn(_pairs()[0, 2]), _drawn(_pairs(adjust=_cut)[0, 2])
    assert adjusted[0] == plain[0]
    assert adjusted[1] != plain[1]


def test_an_unreadable_validation_video_is_reported_and_never_replaced() -> None:
    assert _pairs()[0, 1] == UnreadableVideo("broken", "no frames")


def test_training_reads_from_any_source_and_keeps_the_key() -> None:
    training = TrainingVideos(_items("a", "broken", "c"), RandomSource(), seed=3, augment=_cut)
    sample = training[5, 1]
    assert sample.key == (5, 1)
    assert sample.item.video_id in ("a", "c")
    assert set(sample.unreadable) == {UnreadableVideo("broken", "no frames")}
    assert sample.frames.shape == (1, 2, 3, 2, 2)
