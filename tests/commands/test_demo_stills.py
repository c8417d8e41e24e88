from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from alpro.commands.demo.scenes import SHAPES
from alpro.commands.demo.stills import CORNERS, Still, describe, plan_stills
from alpro.commands.demo.trajectories import SIZE

RED, BLUE = "a red square", "a blue heart"
MIDDLE = SIZE / 2


@pytest.fixture(scope="module")
def stills() -> list[Still]:
    return plan_stills(num_images=300, seed=0)


def wordings(names: list[str], places: list[tuple[float, float]]) -> set[str]:
    """All that may be said of things at some places."""
    draws = (describe(names, places, rng=np.random.default_rng(seed)) for seed in range(40))
    return set(draws)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((10, 10), " at the top left"),
        ((50, 10), " at the top right"),
        ((10, 50), " at the bottom left"),
        ((50, 50), " at the bottom right"),
        ((MIDDLE, 10), ""),
        ((10, MIDDLE), ""),
    ],
)
def test_a_corner_is_named_if_it_is_unambiguous(place: tuple[float, float], words: str) -> None:
    assert wordings([RED], [place]) == {f"{RED}{words}", f"there is {RED}{words}"}


@pytest.mark.parametrize(
    ("other", "told", "told_back"),
    [
        ((50, 25), "left of", "right of"),
        ((10, 25), "right of", "left of"),
        ((25, 50), "above", "below"),
        ((35, 10), "below", "above"),
    ],
)
def test_the_longer_distance_names_the_relation(
    other: tuple[float, float], told: str, told_back: str
) -> None:
    expected = {f"{RED} {told} {BLUE}", f"{BLUE} {told_back} {RED}"}
    expected |= {f"there is {caption}" for caption in expected}
    assert wordings([RED, BLUE], [(30, 25), other]) == expected


def test_things_in_stills_are_visible_and_motionless(stills: list[Still]) -> None:
    for still in stills[:20]:
        picture = still.render()
        assert (picture.shape, picture.dtype) == ((SIZE, SIZE, 3), np.uint8)
        assert picture.max() > 150, "things are brighter than any background"
        assert np.array_equal(picture, still.render())


def test_captions_of_stills_describe_their_things(stills: list[Still]) -> None:
    right = 0
    for still in stills:
        named = set(still.caption.split()) & set(SHAPES)
        right += named <= {thing.shape for thing in still.scene.things}
    assert 0.9 < right / len(stills) < 1, "a few tell of another image"
    said = set(chain.from_iterable(still.caption.split() for still in stills))
    assert set(chain.from_iterable(corner.split() for corner in CORNERS)) <= said
    assert {"above", "below", "photo"} <= said


def test_images_follow_from_the_seed(stills: list[Still]) -> None:
    assert plan_stills(num_images=300, seed=0) == stills
    other = plan_stills(num_images=300, seed=1)
    assert sum(a.scene == b.scene for a, b in zip(stills, other, strict=True)) < 10
    assert len({still.name for still in stills}) == len(stills)
    assert plan_stills(num_images=0, seed=0) == []
