from __future__ import annotations

import numpy as np
import pytest

from alpro.tasks.pretraining.batches import IGNORED, draw_region, mask_tokens

CLS, SEP, PAD, UNK, MASK = 1, 2, 0, 3, 4
SPECIAL = frozenset((CLS, SEP, PAD, UNK, MASK))
VOCAB_SIZE = 1000


def masked(
    ids: np.ndarray, *, seed: int = 0, probability: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    return mask_tokens(
        ids,
        special_ids=SPECIAL,
        mask_id=MASK,
        vocab_size=VOCAB_SIZE,
        probability=probability,
        rng=np.random.default_rng(seed),
    )


def test_words_are_chosen_and_replaced_in_the_shares_of_bert() -> None:
    ids = np.full(200_000, 700)
    hidden, labels = masked(ids)
    chosen = labels != IGNORED
    assert chosen.mean() == pytest.approx(0.15, abs=0.003)
    assert (labels[chosen] == 700).all()
    assert (hidden[~chosen] == 700).all()
    assert (hidden[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.01)
    assert (hidden[chosen] == 700).mean() == pytest.approx(0.1, abs=0.01)
    others = hidden[chosen & (hidden != MASK) & (hidden != 700)]
    assert len(others) / chosen.sum() == pytest.approx(0.1, abs=0.01)
    assert (others.min(), others.max()) == pytest.approx((0, VOCAB_SIZE - 1), abs=10)
    assert len(np.unique(others)) > 900


def test_special_tokens_are_never_chosen() -> None:
    ids = np.array([CLS, 700, UNK, MASK, 701, SEP, PAD, PAD])
    hidden, labels = masked(ids, probability=1.0)
    assert labels.tolist() == [IGNORED, 700, IGNORED, IGNORED, 701, *[IGNORED] * 3]
    assert (hidden[labels == IGNORED] == ids[labels == IGNORED]).all()


def test_the_given_ids_stay_and_types_are_kept() -> None:
    ids = np.arange(500, 600)
    before = ids.copy()
    hidden, labels = masked(ids, probability=0.5)
    assert (ids == before).all()
    assert hidden.dtype == labels.dtype == ids.dtype == np.int64
    assert not (hidden == ids).all()


def test_a_generator_determines_the_words() -> None:
    ids = np.arange(500, 600)
    first, again, other = masked(ids), masked(ids), masked(ids, seed=1)
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert not (first[1] == other[1]).all()


def test_no_token_is_chosen_with_probability_0() -> None:
    ids = np.arange(500, 600)
    hidden, labels = masked(ids, probability=0.0)
    assert (hidden == ids).all()
    assert (labels == IGNORED).all()


def sides(region: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the box; fails where the region is no box."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    assert region[np.ix_(rows, columns)].all()
    assert (np.diff(rows) == 1).all()
    assert (np.diff(columns) == 1).all()
    return len(rows), len(columns)


def test_regions_are_sized_as_the_originals() -> None:
    """14 x 14 patches of 16 pixels: 44 to 96, on average 65.6 (9.6 rows of 7.3)."""
    rng = np.random.default_rng(0)
    regions = np.stack([draw_region(14, patch_size=16, rng=rng) for _ in range(3000)])
    assert regions.shape[1:] == (14, 14)
    assert regions.dtype == bool
    heights, widths = np.array([sides(region) for region in regions]).T
    areas = regions.sum(axis=(1, 2))
    assert 44 <= areas.min() <= 48
    assert 90 <= areas.max() <= 96
    assert areas.mean() == pytest.approx(65.6, abs=0.7)
    assert heights.mean() == pytest.approx(9.6, abs=0.1)
    assert widths.mean() == pytest.approx(7.3, abs=0.1)


def test_regions_reach_all_patches() -> None:
    rng = np.random.default_rng(0)
    shares = np.mean([draw_region(14, patch_size=16, rng=rng) for _ in range(1000)], axis=0)
    assert shares.min() > 0.02
    assert shares[7, 7] > 0.6  # a box as large as these hardly misses the middle


@pytest.mark.parametrize("num_per_side", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("patch_size", [1, 8, 16])
def test_tiny_pictures_have_regions_too(num_per_side: int, patch_size: int) -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        region = draw_region(num_per_side, patch_size=patch_size, rng=rng)
        assert region.shape == (num_per_side, num_per_side)
        assert min(sides(region)) >= 1


def test_a_generator_determines_the_region() -> None:
    first, again, other = (
        draw_region(14, patch_size=16, rng=np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert not (first == other).all()
