"""Which caption-video pairs the fusion encoder scores, and what order unscored ones take.

Shapes: P captions, V videos.
"""

import numpy as np


def pairs_to_score(similarity: np.ndarray, *, top_k: int) -> np.ndarray:
    """All pairs, or the union of both directions' best by VTC.

    Args:
        similarity: (P, V) VTC similarities.
        top_k: how many best videos of each caption, and best captions of each video; 0 for all
            pairs.

    Returns:
        (P, V) bool.
    """
    if top_k == 0:
        return np.ones(similarity.shape, dtype=bool)
    chosen = np.zeros(similarity.shape, dtype=bool)
    best_videos = np.argsort(-similarity, axis=1, kind="stable")[:, :top_k]  # (P, k)
    best_captions = np.argsort(-similarity, axis=0, kind="stable")[:top_k]  # (k, V)
    np.put_along_axis(chosen, best_videos, True, axis=1)
    np.put_along_axis(chosen, best_captions, True, axis=0)
    return chosen


def ranking_scores(scores: np.ndarray, similarity: np.ndarray, *, scored: np.ndarray) -> np.ndarray:
    """Scores to rank by: unscored pairs come below all scored ones, among themselves by VTC.

    Args:
        scores: (P, V) float64, read only where ``scored``.
        similarity: (P, V) VTC similarities.
        scored: (P, V) bool.

    Returns:
        (P, V) float64.
    """
    if scored.all():
        return scores
    below = scores[scored].min() - 1.0 - (similarity.max() - similarity.astype(np.float64))
    return np.where(scored, scores, below)
