"""Moments: neighbouring windows that match a query alike, merged.

Shapes: ``N`` windows, sorted by file and time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpro.search.index import Windows

SHARE_OF_PEAK = 0.7
"""A window belongs to the moment of its neighbour if its score, above the noise floor, is at least
this share of the best one's."""


@dataclass(frozen=True, slots=True)
class Span:
    """Windows of a moment, as positions among the N windows."""

    first: int
    last: int
    peak: int
    """The best one."""


def best_spans(
    scores: np.ndarray, windows: Windows, *, floor: float, most: int, lowest: float
) -> list[Span]:
    """Find the moments of a file or several that match best, best first.

    Moments share no window, and a window beside a moment that is none of it begins no other one.

    Args:
        scores: (N,) of the windows; those below `lowest` are passed over.
        windows: all windows of the index.
        floor: score of windows that have nothing to do with the query.
        most: number of moments.
        lowest: least score.
    """
    file, number = windows.file, windows.number
    is_taken = np.zeros(len(scores), bool)
    spans: list[Span] = []
    for peak in _descending(scores, most * _CANDIDATES_PER_MOMENT, lowest=lowest):
        if len(spans) == most:
            break
        if is_taken[peak]:
            continue
        least = max(floor + SHARE_OF_PEAK * (scores[peak] - floor), lowest)

        def belongs(place: int, beside: int, least: float = least) -> bool:
            return bool(
                0 <= place < len(scores)
                and not is_taken[place]
                and file[place] == file[beside]
                and abs(number[place] - number[beside]) == 1
                and scores[place] >= least
            )

        first = last = int(peak)
        while belongs(first - 1, first):
            first -= 1
        while belongs(last + 1, last):
            last += 1
        is_taken[max(first - 1, 0) : last + 2] = True
        spans.append(Span(first, last, int(peak)))
    return spans


_CANDIDATES_PER_MOMENT = 32  # windows looked at, since those of one moment are many


def _descending(scores: np.ndarray, most: int, *, lowest: float) -> np.ndarray:
    """Positions of the best scores, best first; equal ones in their order."""
    if most < len(scores):
        best = np.sort(np.argpartition(-scores, most)[:most])
    else:
        best = np.arange(len(scores))
    best = best[scores[best] >= lowest]
    return best[np.argsort(-scores[best], kind="stable")]
