"""What question answering over a set of videos gave: answers, and the numbers made of them.

Shapes: Q questions, A answers that the model has logits for, K best answers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from alpro.datasets.qa_annotations import AnswerLabels, QuestionRow
from alpro.datasets.unreadable import UnreadableVideo
from alpro.metrics.question_answering import AccuracyByType, majority_correct, tally

RESERVED_TYPES = ("overall", "top5")
"""What no answer type may be called: ``overall_acc`` and ``top5_acc`` are other metrics."""
NUM_BEST = 5  # answers that are kept of each question, and the depth of "top-5"


class AnsweredQuestion(NamedTuple):
    """The model's answer to one question."""

    question_id: int
    """Row number of the question."""
    best: list[int]
    """(K,) labels of the most probable known answers, best first."""
    probabilities: list[float]
    """(K,) their probabilities among the known answers."""
    loss: float | None
    """Cross-entropy over all A answers; ``None`` where the right one is unknown."""


@dataclass(frozen=True, slots=True)
class QaOutcome:
    """What question answering over one set gave."""

    labels: AnswerLabels
    """The answers that could be given."""
    rows: Sequence[QuestionRow]
    """(Q,) the questions whose video could be read."""
    answers: Sequence[AnsweredQuestion]
    """(Q,) what the model says to each of them."""
    num_left_out: int
    """Questions whose video could not be read."""
    unreadable: Sequence[UnreadableVideo]

    @property
    def num_unanswerable(self) -> int:
        """Questions that could not be answered correctly: their answer is not among those known."""
        return sum(answer.loss is None for answer in self.answers)

    def tally(self) -> AccuracyByType:
        """Questions whose best answer is right."""
        return self._tally(depth=1)

    def tally_top5(self) -> AccuracyByType:
        """Questions whose right answer is one of the five best."""
        return self._tally(depth=NUM_BEST)

    def _tally(self, *, depth: int) -> AccuracyByType:
        right = [self.labels.label_of(row.answer) for row in self.rows]
        hits = [
            label in answer.best[:depth] for label, answer in zip(right, self.answers, strict=True)
        ]
        return tally(np.array(hits, dtype=bool), self._types())

    def tally_majority(self) -> AccuracyByType:
        """Questions that the most frequent answer of their type answers."""
        answers, types = [row.answer for row in self.rows], self._types()
        return tally(majority_correct(answers, types), types)

    def _types(self) -> list[str]:
        return [row.answer_type for row in self.rows]

    def flat_metrics(self) -> dict[str, float]:
        """``overall_acc``, ``top5_acc`` and ``what_acc``, ... in percent, and ``loss``.

        The loss is the mean cross-entropy of the questions whose right answer is known; it is left
        out where there are none.
        """
        found = self.tally()
        losses = [answer.loss for answer in self.answers if answer.loss is not None]
        return {
            "overall_acc": found.overall.percent,
            "top5_acc": self.tally_top5().overall.percent,
            **{f"{kind}_acc": count.percent for kind, count in found.by_type.items()},
            **({"loss": math.fsum(losses) / len(losses)} if losses else {}),
        }

    def scores(self) -> dict[str, Any]:
        """The original's ``scores.json``, percentages to 2 decimals, and what it lacks.

        ``counts`` are (correct, all) questions, and ``majority`` the accuracy of always giving the
        most frequent answer of a type.
        """
        found, majority = self.tally(), self.tally_majority()
        return {
            "ratios": {
                f"{kind}_ratio": [round(found.share(kind), 2), count.total]
                for kind, count in found.by_type.items()
            },
            **_accuracies(found),
            "top5_acc": round(self.tally_top5().overall.percent, 2),
            "counts": {
                kind: [count.correct, count.total]
                for kind, count in {"overall": found.overall, **found.by_type}.items()
            },
            "majority": _accuracies(majority),
        }

    def results(self) -> list[dict[str, Any]]:
        """One record for each question, in the original's shape.

        Beside the answer's label stand its text and the best answers with their probabilities.
        """
        return [
            {
                "question_id": answer.question_id,
                "answer": answer.best[0],
                "answer_text": self.labels.text_of(answer.best[0]),
                "top5": [
                    {"answer": self.labels.text_of(label), "probability": probability}
                    for label, probability in zip(answer.best, answer.probabilities, strict=True)
                ],
                "data": {
                    "question": row.question,
                    "vid_id": row.video_id,
                    "answer": row.answer,
                    "question_id": answer.question_id,
                    "answer_type": row.answer_type,
                },
            }
            for row, answer in zip(self.rows, self.answers, strict=True)
        ]


def _accuracies(found: AccuracyByType) -> dict[str, float]:
    """The original's names and precision."""
    counts = {"overall": found.overall, **found.by_type}
    return {f"{kind}_acc": round(count.percent, 2) for kind, count in counts.items()}
