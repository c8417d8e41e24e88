from __future__ import annotations

import numpy as np
import pytest

from alpro.tasks.retrieval.evaluation import pairs_to_score, ranking_scores


def similarities(seed: int) -> np.ndarray:
    """(7, 5) without ties."""
    return np.random.default_rng(seed).normal(size=(7, 5)).astype(np.float32)


def test_all_pairs_are_scored_by_default() -> None:
    assert pairs_to_score(similarities(0), top_k=0).all()


@pytest.mark.parametrize("top_k", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_pairs_of_both_directions_are_scored(seed: int, top_k: int) -> None:
    similarity = similarities(seed)
    chosen = pairs_to_score(similarity, top_k=top_k)
    for caption, video in np.ndindex(similarity.shape):
        better_videos = sum(similarity[caption] > similarity[caption, video])
        better_captions = sum(similarity[:, video] > similarity[caption, video])
        assert chosen[caption, video] == (better_videos < top_k or better_captions < top_k)


def test_ties_do_not_add_pairs() -> None:
    chosen = pairs_to_score(np.zeros((4, 3)), top_k=1)
    assert chosen.sum(axis=1).tolist() == [3, 1, 1, 1]  # first video of all, first caption of all


@pytest.mark.parametrize("seed", range(10))
def test_unscored_pairs_come_last_and_in_the_order_of_similarity(seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = 100 * similarities(seed)
    scores, scored = rng.random(similarity.shape), rng.random(similarity.shape) < 0.4
    ranked = ranking_scores(np.where(scored, scores, np.nan), similarity, scored=scored)

    def sort_key(pair: tuple[int, int]) -> tuple[bool, float]:
        return bool(scored[pair]), float((scores if scored[pair] else similarity)[pair])

    pairs = list(np.ndindex(similarity.shape))
    assert sorted(pairs, key=lambda pair: ranked[pair]) == sorted(pairs, key=sort_key)
    assert (ranked[scored] == scores[scored]).all()


def test_scores_are_unchanged_where_all_pairs_are_scored() -> None:
    scores = np.array([[0.2, 1e-300]])
    assert ranking_scores(scores, np.ones((1, 2)), scored=np.ones((1, 2), dtype=bool)) is scores
