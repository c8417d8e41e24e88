from itertools import permutations

import numpy as np
import pytest

from alpro.errors import NotNumbersError
from alpro.tasks.retrieval.metrics import (
    dual_softmax,
    dual_softmax_metrics,
    retrieval_metrics,
    summarise_ranks,
    text_to_video_ranks,
    video_to_text_ranks,
)


def mean_rank_over_orders(correct: float, wrong: list[float]) -> float:
    """The oracle: sort, for every order in which equal scores may come; the mean position."""
    items = [(correct, True), *((score, False) for score in wrong)]
    orders = [sorted(order, key=lambda item: -item[0]) for order in permutations(items)]
    return float(np.mean([1 + order.index((correct, True)) for order in orders]))


def scores_with_ties(seed: int) -> tuple[np.ndarray, list[int]]:
    """(6, 4) scores of few different values, and a video for each caption; all have one."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation([0, 1, 2, 3, *rng.integers(0, 4, 2)]).tolist()
    return rng.integers(0, 4, (6, 4)).astype(float), owner


@pytest.mark.parametrize("seed", range(20))
def test_text_to_video_ranks_are_the_mean_over_all_orders_of_ties(seed: int) -> None:
    scores, owner = scores_with_ties(seed)
    expected = [
        mean_rank_over_orders(row[own], np.delete(row, own).tolist())
        for row, own in zip(scores, owner, strict=True)
    ]
    assert text_to_video_ranks(scores, owner).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_video_to_text_ranks_are_those_of_the_best_of_the_videos_captions(seed: int) -> None:
    scores, owner = scores_with_ties(seed)
    expected = []
    for video in range(4):
        own = [score for score, o in zip(scores[:, video], owner, strict=True) if o == video]
        wrong = [score for score, o in zip(scores[:, video], owner, strict=True) if o != video]
        expected.append(mean_rank_over_orders(max(own), wrong))
    assert video_to_text_ranks(scores, owner).tolist() == pytest.approx(expected)


def test_ranks_without_ties_are_places_in_the_sorted_list() -> None:
    rng = np.random.default_rng(0)
    scores, owner = rng.normal(size=(40, 15)), rng.integers(0, 15, 40)
    places = [np.argsort(-row).tolist().index(own) for row, own in zip(scores, owner, strict=True)]
    assert text_to_video_ranks(scores, owner.tolist()).tolist() == [p + 1 for p in places]
    # Other correct captions cannot come before the best one, so its place counts wrong ones only.
    places = [
        min(np.argsort(-scores[:, video]).tolist().index(c) for c in np.flatnonzero(owner == video))
        for video in np.unique(owner)
    ]
    assert video_to_text_ranks(scores, owner.tolist()).tolist() == [p + 1 for p in places]


def test_constant_scores_earn_the_rank_in_the_middle() -> None:
    constant = np.zeros((5, 5))
    assert text_to_video_ranks(constant, range(5)).tolist() == [3.0] * 5
    assert video_to_text_ranks(constant, range(5)).tolist() == [3.0] * 5
    # Five captions, all of one video: whichever is retrieved first is right.
    assert video_to_text_ranks(np.zeros((5, 1)), [0] * 5).tolist() == [1.0]


def test_a_video_without_captions_has_no_rank_and_distracts() -> None:
    scores = np.array([[0.1, 0.9], [0.3, 0.2]])
    assert text_to_video_ranks(scores, [0, 0]).tolist() == [2.0, 1.0]
    assert video_to_text_ranks(scores, [0, 0]).tolist() == [1.0]


def test_scores_of_minus_infinity_rank_last() -> None:
    scores = np.array([[-np.inf, 0.0, -1.0], [5.0, -np.inf, 1.0]])
    assert text_to_video_ranks(scores, [0, 2]).tolist() == [3.0, 2.0]


def test_the_summary_of_ranks_by_hand() -> None:
    assert summarise_ranks(np.array([1.0, 1.5, 5.0, 10.5])) == {
        "r1": 25.0,
        "r5": 75.0,
        "r10": 75.0,
        "medianR": 3.25,
        "meanR": 4.5,
    }


def test_metrics_of_both_directions_by_hand() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.7], [0.2, 0.3]])
    metrics = retrieval_metrics(scores, [0, 1, 1])
    assert [metrics["text2video"][name] for name in ("r1", "meanR")] == [
        pytest.approx(200 / 3),
        pytest.approx(4 / 3),
    ]
    assert [metrics["video2text"][name] for name in ("r1", "meanR")] == [100.0, 1.0]


def test_nan_scores_are_refused() -> None:
    scores = np.array([[0.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(NotNumbersError, match="^2 retrieval scores are NaN"):
        retrieval_metrics(scores, [0, 1])


def test_dual_softmax_by_hand() -> None:
    # Scaled by 100, 0.02 and 0.01 are 2 and 1: over the texts, e^2 / (e^2 + e) of the column.
    cosine = np.array([[0.02, 0.0], [0.01, 0.0]])
    share = np.e / (1 + np.e)
    assert dual_softmax(cosine, axis=0)[:, 0].tolist() == pytest.approx(
        [0.02 * share, 0.01 * (1 - share)]
    )
    share = np.e**2 / (1 + np.e**2)
    assert dual_softmax(cosine, axis=1)[0].tolist() == pytest.approx([0.02 * share, 0.0])


def test_dual_softmax_takes_a_video_from_a_text_that_others_want_more() -> None:
    # Text 0 prefers video 1 by a hair, which text 1 wants far more.
    cosine = np.array([[0.30, 0.31], [0.10, 0.60]])
    assert retrieval_metrics(cosine, [0, 1])["text2video"]["r1"] == 50.0
    assert dual_softmax_metrics(cosine, [0, 1])["text2video"]["r1"] == 100.0
    swapped = dual_softmax_metrics(cosine.T, [0, 1])  # the directions change places
    assert swapped["video2text"]["r1"] == 100.0
