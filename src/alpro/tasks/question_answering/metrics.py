"""Accuracy of answers to questions, overall and by type of answer, as exact counts.

Shapes: Q questions.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ANSWER_TYPES = ("what", "who", "how", "where", "when")
"""The types of MSRVTT-QA and MSVD-QA, in the order in which results are reported."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Number of correctly answered questions."""

    correct: int
    total: int

    @property
    def percent(self) -> float:
        """The accuracy, 0 to 100."""
        return 100.0 * self.correct / self.total


@dataclass(frozen=True, slots=True)
class AccuracyByType:
    """Correct answers to all questions and to those of each type."""

    overall: Accuracy
    by_type: dict[str, Accuracy]
    """The types that occur: those of :data:`ANSWER_TYPES` first, then the others by name."""

    @property
    def counts(self) -> dict[str, Accuracy]:
        """Those of all questions, as "overall", and of each type."""
        return {"overall": self.overall, **self.by_type}

    def share(self, answer_type: str) -> float:
        """Share of all questions that are of a type, in percent."""
        return 100.0 * self.by_type[answer_type].total / self.overall.total


def tally(correct: np.ndarray, types: Sequence[str]) -> AccuracyByType:
    """Count correct answers, (Q,) bool, by the type of each; Q is at least 1."""
    totals = Counter(types)
    hits = Counter(kind for kind, hit in zip(types, correct.tolist(), strict=True) if hit)
    kinds = [*filter(totals.__contains__, ANSWER_TYPES), *sorted(totals.keys() - {*ANSWER_TYPES})]
    return AccuracyByType(
        overall=Accuracy(hits.total(), totals.total()),
        by_type={kind: Accuracy(hits[kind], totals[kind]) for kind in kinds},
    )


def majority_correct(answers: Sequence[str], types: Sequence[str]) -> np.ndarray:
    """Hits, (Q,) bool, of the baseline that gives the commonest answer of each question's type.

    Of equally common answers it gives the first one.
    """
    # Count the answers of each type, then compare with the commonest.
    answers_of: dict[str, Counter[str]] = defaultdict(Counter)
    for answer, kind in zip(answers, types, strict=True):
        answers_of[kind][answer] += 1
    commonest = {kind: counts.most_common(1)[0][0] for kind, counts in answers_of.items()}
    return np.array([commonest[kind] == a for a, kind in zip(answers, types, strict=True)])
