from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from alpro.datasets.transforms import augmentation
from alpro.datasets.transforms.augmentation import (
    BORDER,
    OPERATIONS,
    RandAugment,
    apply_operation,
    image_augmentation,
    video_augmentation,
)
from alpro.errors import InputError

BRIGHT = 250


def picture(size: int, *points: tuple[int, int]) -> Tensor:
    """A clip of one black frame (1, 3, size, size) with bright pixels at (row, column)."""
    frames = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    for row, column in points:
        frames[..., row, column] = BRIGHT
    return frames


def bright(frames: Tensor) -> list[list[int]]:
    """Rows and columns of the pixels that are bright in all channels."""
    return (frames[0] == BRIGHT).all(dim=0).nonzero().tolist()


def noise(*, num_frames: int = 3, size: int = 8) -> np.ndarray:
    shape = (num_frames, 3, size, size)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("name", "at_5", "at_7"),
    [
        ("contrast", 1.0, 1.36),
        ("brightness", 1.0, 1.36),
        ("sharpness", 1.0, 1.36),
        ("shear_x", 0.15, 0.21),
        ("shear_y", 0.15, 0.21),
        ("translate_x", 5.0, 7.0),
        ("translate_y", 5.0, 7.0),
        ("rotate", 15.0, 21.0),
    ],
)
def test_arguments_of_the_operations(name: str, at_5: float, at_7: float) -> None:
    operation = OPERATIONS[name]
    assert operation.argument(0.5) == pytest.approx(at_5)
    assert operation.argument(0.7) == pytest.approx(at_7)


def test_four_operations_do_nothing_at_the_level_of_video() -> None:
    frames = torch.from_numpy(noise(size=24))
    unchanged = {name for name in OPERATIONS if apply_operation(frames, name, level=5) is frames}
    assert unchanged == {"identity", "contrast", "brightness", "sharpness"}
    for name in OPERATIONS.keys() - unchanged:
        assert not torch.equal(apply_operation(frames, name, level=5), frames), name


@pytest.mark.parametrize("name", ["contrast", "brightness", "sharpness"])
def test_a_factor_of_one_changes_nothing(name: str) -> None:
    frames = torch.from_numpy(noise())
    assert torch.equal(OPERATIONS[name].apply(frames, 1.0), frames)


def test_shears_leave_the_first_row_and_column() -> None:
    """A slope of 0.15 moves row 20 right, column 20 down, by 3 pixels."""
    frames = picture(24, (0, 5), (20, 4))
    assert bright(apply_operation(frames, "shear_x", level=5)) == [[0, 5], [20, 7]]
    frames = picture(24, (5, 0), (4, 20))
    assert bright(apply_operation(frames, "shear_y", level=5)) == [[5, 0], [7, 20]]


def test_translations_go_left_and_up() -> None:
    frames = picture(10, (6, 8))
    left, up = (apply_operation(frames, f"translate_{axis}", level=5) for axis in "xy")
    assert bright(left) == [[6, 3]]
    assert bright(up) == [[1, 8]]
    assert (left[..., :5] != BORDER).all()
    assert (left[..., 5:] == BORDER).all()
    assert (up[..., 5:, :] == BORDER).all()


def test_rotation_is_counter_clockwise_about_the_middle_pixel() -> None:
    frames = picture(8, (4, 6), (4, 4))  # the middle, and two to the right of it
    assert bright(OPERATIONS["rotate"].apply(frames, 90.0)) == [[2, 4], [4, 4]]
    column = picture(40, *((row, 20) for row in range(40)))
    tilted = apply_operation(column, "rotate", level=5)[0, 0, 5].tolist()
    assert tilted.index(max(tilted)) == 16  # 15 rows above the middle: 15 * tan(15 degrees) left


def test_flip_is_left_to_right() -> None:
    assert bright(apply_operation(picture(4, (0, 1)), "horizontal_flip", level=5)) == [[0, 2]]


def test_picture_and_border_mix_by_their_shares() -> None:
    black = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    moved = OPERATIONS["translate_x"].apply(black, 0.5)
    assert moved[0, 0, 0].tolist() == [0, 0, 0, BORDER // 2]


def test_brightness_and_contrast_by_hand() -> None:
    frames = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    frames[0, :, 0, 0] = torch.tensor([200, 100, 0])
    assert OPERATIONS["brightness"].apply(frames, 1.5).flatten().tolist() == [255, 150, 0]
    # Mean 0.114 * 200 + 0.587 * 100 = 81.5, its fraction dropped.
    assert OPERATIONS["contrast"].apply(frames, 2.0).flatten().tolist() == [255, 119, 0]


def test_sharpness_by_hand() -> None:
    frames = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    frames[..., 1, 1] = 130
    frames[..., 0, 0] = 26
    # Blurred, the middle is (5 * 130 + 26) / 13 = 52.
    sharper = OPERATIONS["sharpness"].apply(frames, 1.5)
    assert sharper[0, 0, 1, 1] == 52 + 1.5 * (130 - 52)
    assert sharper[0, 0, 0].tolist() == [26, 0, 0]
    assert OPERATIONS["sharpness"].apply(frames, 9.0)[0, 0, 1, 1] == 255


def test_all_frames_are_changed_alike() -> None:
    frames = np.repeat(noise(num_frames=1), 4, axis=0)
    before = frames.copy()
    for seed in range(20):
        changed = video_augmentation()(frames, np.random.default_rng(seed))
        assert changed.shape == frames.shape
        assert changed.dtype == np.uint8
        assert (changed == changed[:1]).all()
    assert (frames == before).all()


def test_a_generator_determines_the_result() -> None:
    frames, augment = noise(), video_augmentation()
    copy = pickle.loads(pickle.dumps(augment))
    results = [augment(frames, np.random.default_rng(seed)) for seed in range(8)]
    for seed, result in enumerate(results):
        assert (copy(frames, np.random.default_rng(seed)) == result).all()
    assert len({result.tobytes() for result in results}) > 4


def test_no_operation_is_drawn_twice() -> None:
    """Both of two operations are applied each time, so that the flip is never undone."""
    augment = RandAugment(("horizontal_flip", "identity"), num_operations=2, level=5)
    frames = noise()
    for seed in range(10):
        assert (augment(frames, np.random.default_rng(seed)) == frames[..., ::-1]).all()


def test_a_clip_stays_unchanged_with_probability_6_in_45() -> None:
    frames, augment = noise(num_frames=1), video_augmentation()
    results = [augment(frames, np.random.default_rng(seed)) for seed in range(450)]
    assert 45 <= sum((result == frames).all() for result in results) <= 75


def test_an_image_operation_may_be_drawn_twice() -> None:
    """Two flips undo each other: half of the draws of two out of two."""
    augment = RandAugment(
        ("horizontal_flip", "identity"), num_operations=2, level=5, with_replacement=True
    )
    frames = noise()
    results = [augment(frames, np.random.default_rng(seed)) for seed in range(200)]
    assert 75 <= sum((result == frames).all() for result in results) <= 125


def test_an_operation_is_applied_with_its_probability() -> None:
    augment = RandAugment(("horizontal_flip",), num_operations=1, level=5, probability=0.25)
    frames = noise()
    results = [augment(frames, np.random.default_rng(seed)) for seed in range(400)]
    assert 70 <= sum((result == frames[..., ::-1]).all() for result in results) <= 130


def test_images_are_changed_as_the_originals() -> None:
    """An image stays as it is where neither of two draws is applied and does something."""
    augment = image_augmentation()
    assert set(OPERATIONS) - set(augment.operations) == {"contrast", "horizontal_flip"}
    frames = noise(num_frames=1, size=24)
    results = [augment(frames, np.random.default_rng(seed)) for seed in range(400)]
    unchanged = np.mean([(result == frames).all() for result in results])
    assert unchanged == pytest.approx((1 - 7 / 8 / 2) ** 2, abs=0.07)


def test_sharpness_is_clipped_at_the_level_of_images() -> None:
    """Where the original wraps from 255 to 0 and on."""
    frames = torch.full((1, 3, 3, 3), 60, dtype=torch.uint8)
    frames[..., 1, 1] = 250
    # Blurred, the middle is (5 * 250 + 8 * 60) / 13 = 133; sharpened, 133 + 1.36 * 117 = 292.
    sharper = apply_operation(frames, "sharpness", level=7)
    assert sharper[0, :, 1, 1].tolist() == [255, 255, 255]
    dark = 255 - apply_operation(255 - frames, "sharpness", level=7)
    assert dark[0, :, 1, 1].tolist() == [255, 255, 255]


def test_a_missing_torchvision_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "has_package", lambda _: False)
    with pytest.raises(InputError, match="needs torchvision.*set augmentation to none"):
        video_augmentation()
