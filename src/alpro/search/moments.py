"""Moments: neighbouring windows that match a query alike, merged.

Shapes: ``N`` windows, sorted by file and time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alpro.search.index import Windows

SHARE_OF_PEAK = 0.95
"""A window belongs to the moment of its neighbour if its score, above the noise floor, is at least
this share of the best one's. Measured on the demo's validation videos: of moments found first, 21 %
were the right ones with 0.7, 37 % with 0.9, 45 % with 0.95, 36 % with 0.99."""
WINDOWS_PER_MOMENT = 32  # windows looked at, since those of one moment are many


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
    for peak in _peaks(scores, is_taken, most * WINDOWS_PER_MOMENT, lowest=lowest):
        if len(spans) == most:
            break
        least = max(floor + SHARE_OF_PEAK * (scores[peak] - floor), lowest)

        def belongs(place: int, beside: int, least: float = least) -> bool:
            return bool(
                0 <= place < len(scores)
                and not is_taken[place]
                and file[place] == file[beside]
                and abs(number[place] - number[beside]) == 1
                and scores[place] >= least
            )

        first = last = peak
        while belongs(first - 1, first):
            first -= 1
        while belongs(last + 1, last):
            last += 1
        around = slice(max(first - 1, 0), last + 2)
        is_taken[around] |= file[around] == file[peak]
        spans.append(Span(first, last, peak))
    return spans


def best_positions(scores: np.ndarray, most: int) -> np.ndarray:
    """Positions of the best scores, ascending; the first ones of equal scores."""
    if most >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, -most)[-most]
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: most - len(above)]]))


def _peaks(
    scores: np.ndarray, is_taken: np.ndarray, at_once: int, *, lowest: float
) -> Iterator[int]:
    """Positions of scores, best first, equal ones in their order; without those taken meanwhile."""
    while (is_left := ~is_taken & (scores >= lowest)).any():
        left = np.where(is_left, scores, -np.inf)
        best = best_positions(left, at_once)
        for place in best[np.argsort(-left[best], kind="stable")].tolist():
            if is_left[place] and not is_taken[place]:
                yield place
