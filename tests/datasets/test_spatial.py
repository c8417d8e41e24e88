from __future__ import annotations

import pickle

import numpy as np
import pytest

from alpro.datasets.transforms.augmentation import (
    CentreCrop,
    Pipeline,
    RandomCrop,
    RandomFlip,
    RepeatFrames,
    image_augmentation,
)
from alpro.datasets.video_datasets import FrameAugmentation


def clip(*, num_frames: int = 2, height: int = 6, width: int = 9) -> np.ndarray:
    """Frames (T, 3, H, W) whose pixels tell their place: ten times the row and the column."""
    places = np.arange(height, dtype=np.uint8)[:, None] * 10 + np.arange(width, dtype=np.uint8)
    return np.tile(places, (num_frames, 3, 1, 1))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_random_crops_reach_every_place_alike() -> None:
    crop = RandomCrop(4)
    crops = [crop(clip(), rng(seed)) for seed in range(1800)]
    assert {one.shape for one in crops} == {(2, 3, 4, 4)}
    corners = [divmod(int(one[0, 0, 0, 0]), 10) for one in crops]
    counts = [corners.count((top, left)) for top in range(3) for left in range(6)]
    assert sum(counts) == 1800
    assert min(counts) > 60
    for one, (top, left) in zip(crops[:20], corners, strict=False):
        assert (one == clip()[..., top : top + 4, left : left + 4]).all()


def test_the_centre_is_cut_out() -> None:
    cut = CentreCrop(4)(clip(), rng())
    assert (cut == clip()[..., 1:5, 2:6]).all()
    assert (CentreCrop(6)(clip(width=6), rng()) == clip(width=6)).all()


@pytest.mark.parametrize("crop", [RandomCrop(7), CentreCrop(7)])
def test_a_crop_larger_than_the_frames_is_refused(crop: FrameAugmentation) -> None:
    with pytest.raises(ValueError, match="no square of 7 pixels in frames of 6 x 9"):
        crop(clip(), rng())


def test_flips_are_as_frequent_as_their_probability() -> None:
    frames = clip()
    results = [RandomFlip(0.25)(frames, rng(seed)) for seed in range(400)]
    flipped = [not (result == frames).all() for result in results]
    assert 70 <= sum(flipped) <= 130
    assert (results[flipped.index(True)] == frames[..., ::-1]).all()
    assert (RandomFlip(1.0)(frames, rng()) == frames[..., ::-1]).all()
    assert RandomFlip(0.0)(frames, rng()) is frames


def test_an_image_becomes_identical_frames() -> None:
    image = clip(num_frames=1)
    repeated = RepeatFrames(4)(image, rng())
    assert repeated.shape == (4, 3, 6, 9)
    assert (repeated == image).all()
    with pytest.raises(ValueError, match="2 frames are no still image"):
        RepeatFrames(4)(clip(), rng())


def test_steps_follow_each_other() -> None:
    pipeline = Pipeline((CentreCrop(4), RandomFlip(1.0), RandomCrop(2)))
    assert Pipeline(())(clip(), rng()) is not None
    flipped = clip()[..., 1:5, 2:6][..., ::-1]
    found = pipeline(clip(), rng())
    places = [flipped[..., top : top + 2, left : left + 2] for top in range(3) for left in range(3)]
    assert sum((found == place).all() for place in places) == 1


def test_a_pipeline_of_images_can_be_sent_and_leaves_its_input() -> None:
    pipeline = Pipeline((RandomFlip(0.5), image_augmentation(), RepeatFrames(3)))
    copy = pickle.loads(pickle.dumps(pipeline))
    image = clip(num_frames=1, width=6)
    before = image.copy()
    results = [pipeline(image, rng(seed)) for seed in range(20)]
    for seed, result in enumerate(results):
        assert result.shape == (3, 3, 6, 6)
        assert (result == result[:1]).all()
        assert (copy(image, rng(seed)) == result).all()
    assert (image == before).all()
    assert len({result.tobytes() for result in results}) > 5
