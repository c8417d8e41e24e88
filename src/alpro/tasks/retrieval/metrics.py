"""Retrieval metrics from a score matrix.

Shapes: P captions, V videos.

Ties. The rank of an item is 1 + the number of wrong items scored higher + half the number of wrong
items scored the same, so constant scores earn the rank in the middle. A video with several captions
is ranked by its best one; equal scores of its other captions are no ties, as any of them is a hit.
"""

from collections.abc import Sequence

import numpy as np

from alpro.errors import NotNumbersError

RECALL_DEPTHS = (1, 5, 10)
DUAL_SOFTMAX_SCALE = 100.0  # of cosine similarities, CAMoE's and CLIP-ViP's


def text_to_video_ranks(scores: np.ndarray, video_of_caption: Sequence[int]) -> np.ndarray:
    """Rank of each caption's video.

    Args:
        scores: (P, V), higher is better; -inf is allowed, NaN is not.
        video_of_caption: (P,) column of the video that each caption describes.

    Returns:
        (P,) float64, 1-based, in steps of 0.5.
    """
    # Ties count half; the pair itself is no tie.
    correct = scores[np.arange(len(scores)), np.asarray(video_of_caption)][:, None]  # (P, 1)
    higher = (scores > correct).sum(axis=1)
    equal = (scores == correct).sum(axis=1) - 1
    return 1.0 + higher + 0.5 * equal


def video_to_text_ranks(scores: np.ndarray, video_of_caption: Sequence[int]) -> np.ndarray:
    """Rank of each video's best-ranked caption.

    Args:
        scores: (P, V), as in :func:`text_to_video_ranks`.
        video_of_caption: (P,) as there. Videos that no caption describes are left out.

    Returns:
        (V',) float64 for the V' videos with at least one caption, in column order.
    """
    owner = np.asarray(video_of_caption)
    ranks = []
    for column in np.unique(owner):
        # The best caption of the video against all captions of others.
        own = owner == column
        wrong_scores = scores[~own, column]
        best = scores[own, column].max()
        ranks.append(1.0 + (wrong_scores > best).sum() + 0.5 * (wrong_scores == best).sum())
    return np.asarray(ranks, dtype=np.float64)


def dual_softmax_metrics(
    cosine: np.ndarray, video_of_caption: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Metrics of both directions after dual softmax (DSL; Cheng et al., CAMoE, 2021).

    Each similarity is weighted by how much its candidate prefers this query to all other queries of
    the test set. Such numbers are transductive: they need all queries at once, and their
    one-to-one match with the candidates, which a search does not have.

    Arguments and result are those of :func:`retrieval_metrics`, for (P, V) cosine similarities.
    """
    # The queries of text-to-video are the rows.
    over_texts = dual_softmax(cosine, axis=0)
    over_videos = dual_softmax(cosine, axis=1)
    return {
        "text2video": retrieval_metrics(over_texts, video_of_caption)["text2video"],
        "video2text": retrieval_metrics(over_videos, video_of_caption)["video2text"],
    }


def dual_softmax(cosine: np.ndarray, *, axis: int) -> np.ndarray:
    """(P, V) cosine similarities times their softmax over the axis of the queries, in float64."""
    # Softmax in float64, with the largest subtracted: exp of 100 overflows float32.
    scaled = DUAL_SOFTMAX_SCALE * cosine.astype(np.float64)
    weights = np.exp(scaled - scaled.max(axis=axis, keepdims=True))
    return cosine * (weights / weights.sum(axis=axis, keepdims=True))


def summarise_ranks(ranks: np.ndarray) -> dict[str, float]:
    """Recall at 1, 5, 10 in percent, median and mean rank, under the original's names."""
    summary = {f"r{k}": 100.0 * float(np.mean(ranks <= k)) for k in RECALL_DEPTHS}
    summary["medianR"] = float(np.median(ranks))
    summary["meanR"] = float(np.mean(ranks))
    return summary


def retrieval_metrics(
    scores: np.ndarray, video_of_caption: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Metrics of both directions.

    Args:
        scores: (P, V), higher is better.
        video_of_caption: (P,) column of the video that each caption describes.

    Returns:
        ``{"text2video": {"r1", "r5", "r10", "medianR", "meanR"}, "video2text": {...}}``.

    Raises:
        NotNumbersError: a score is NaN, which no rank can be given to.
    """
    # NaN has no rank.
    if np.isnan(scores).any():
        raise NotNumbersError(f"{int(np.isnan(scores).sum())} retrieval scores")
    return {
        "text2video": summarise_ranks(text_to_video_ranks(scores, video_of_caption)),
        "video2text": summarise_ranks(video_to_text_ranks(scores, video_of_caption)),
    }
