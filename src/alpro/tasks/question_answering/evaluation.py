"""Video question answering as classification, for validation and inference alike.

Shapes: B videos, Q questions, C clips of each video, A answers that the model has logits for,
K best answers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alpro.datasets.video_datasets import UnreadableVideo, VideoBatch
from alpro.distributed.engine import autocast
from alpro.errors import NotNumbersError
from alpro.evaluation.encoding import chunks, encode_clips, score_clips
from alpro.evaluation.evaluation_set import (
    EvaluationSet,
    Evaluator,
    check_unreadable,
    evaluation_mode,
    readable_rows,
)
from alpro.modeling.contracts import AnswerClassifier, VideoFeatures
from alpro.tasks.question_answering.annotations import AnswerLabels, QuestionRow
from alpro.tasks.question_answering.metrics import AccuracyByType, majority_correct, tally
from alpro.training.atomic_io import write_json, write_records

RESERVED_TYPES = ("overall", "top5")
"""Answer types whose accuracies would collide with ``overall_acc`` and ``top5_acc``."""
NUM_BEST = 5  # answers that are kept of each question, and the depth of "top-5"


class AnsweredQuestion(NamedTuple):
    """The model's answer to one question."""

    question_id: int
    """Row number of the question."""
    best: list[int]
    """(K,) labels of the most probable known answers, best first."""
    probabilities: list[float]
    """(K,) their probabilities, normalised over the known answers."""
    loss: float | None
    """Cross-entropy over all A answers; None if the right one is unknown."""


@dataclass(frozen=True, slots=True)
class QaOutcome:
    """Outcome of question answering over one set."""

    labels: AnswerLabels
    """The answers that could be given."""
    rows: Sequence[QuestionRow]
    """(Q,) the questions whose video could be read."""
    answers: Sequence[AnsweredQuestion]
    """(Q,) the model's answers."""
    num_left_out: int
    """Questions whose video could not be read."""
    unreadable: Sequence[UnreadableVideo]

    @property
    def num_unanswerable(self) -> int:
        """Questions whose right answer is unknown, so that no answer can be correct."""
        return sum(answer.loss is None for answer in self.answers)

    def accuracy(self, *, depth: int = 1) -> AccuracyByType:
        """Questions whose right answer is one of the `depth` best."""
        # Unknown answers have no label and are never hit.
        right = [self.labels.label_of(row.answer) for row in self.rows]
        hits = [
            label in answer.best[:depth] for label, answer in zip(right, self.answers, strict=True)
        ]
        return tally(np.array(hits, dtype=bool), [row.answer_type for row in self.rows])

    def flat_metrics(self) -> dict[str, float]:
        """``overall_acc``, ``top5_acc`` and ``what_acc``, ... in percent, and ``loss``.

        The loss is the mean cross-entropy of the questions whose right answer is known, if any.
        """
        # Types that do not occur have no accuracy.
        accuracy = self.accuracy()
        losses = [answer.loss for answer in self.answers if answer.loss is not None]
        return {
            "overall_acc": accuracy.overall.percent,
            "top5_acc": self.accuracy(depth=NUM_BEST).overall.percent,
            **{f"{kind}_acc": count.percent for kind, count in accuracy.by_type.items()},
            **({"loss": math.fsum(losses) / len(losses)} if losses else {}),
        }

    def scores(self) -> dict[str, Any]:
        """The original's ``scores.json``, percentages to 2 decimals, with some additions.

        ``counts`` are (correct, all) questions, and ``majority`` the accuracy of always giving the
        most frequent answer of a type.
        """
        accuracy = self.accuracy()
        answers, types = zip(*((row.answer, row.answer_type) for row in self.rows), strict=True)
        majority = tally(majority_correct(answers, types), types)
        return {
            "ratios": {
                f"{kind}_ratio": [round(accuracy.share(kind), 2), count.total]
                for kind, count in accuracy.by_type.items()
            },
            **_accuracies(accuracy),
            "top5_acc": round(self.accuracy(depth=NUM_BEST).overall.percent, 2),
            "counts": {kind: [one.correct, one.total] for kind, one in accuracy.counts.items()},
            "majority": _accuracies(majority),
        }

    def results(self) -> list[dict[str, Any]]:
        """One record per question in the original's shape, with the best answers' texts added."""
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


def _accuracies(accuracy: AccuracyByType) -> dict[str, float]:
    """Accuracies under the original's names, to its precision."""
    return {f"{kind}_acc": round(one.percent, 2) for kind, one in accuracy.counts.items()}


NO_LABEL = -100  # of an answer outside the map; cross_entropy leaves it out


@dataclass(eq=False)
class QuestionAnsweringEvaluator(Evaluator):
    """Encodes each video of a set once and answers the questions about it.

    Batches of questions are cut within a chunk of videos, so an answer, to its last bit, does not
    depend on the number of ranks.
    """

    model: AnswerClassifier  # has a logit for each known answer, and may have more
    _: KW_ONLY
    labels: AnswerLabels
    question_chunk: int  # questions fused with their videos at once

    def __post_init__(self) -> None:
        assert self.model.num_labels >= len(self.labels)

    @torch.inference_mode()
    def run(self, data: EvaluationSet[QuestionRow]) -> QaOutcome:
        """Answer the questions of a set."""
        # Answer the questions about this rank's videos.
        own: list[AnsweredQuestion] = []
        unreadable: list[UnreadableVideo] = []
        rows_of = data.rows_by_position()
        with evaluation_mode(self.model):
            for batch in self.progress(data.loader, "answering questions", "batch"):
                unreadable += batch.unreadable
                own += self._answer_batch(batch, data.rows, rows_of)
        # Gather the answers of all ranks, in order of the questions.
        gathered = self.engine.gather_objects((own, unreadable))
        lost = list(chain.from_iterable(part for _, part in gathered))
        check_unreadable(data, lost, allowed=self.allow_missing_videos)
        readable = readable_rows(data, lost)
        answers = sorted(chain.from_iterable(part for part, _ in gathered))
        assert [answer.question_id for answer in answers] == readable
        _check_numbers(answers)
        return QaOutcome(
            labels=self.labels,
            rows=[data.rows[row] for row in readable],
            answers=answers,
            num_left_out=len(data.rows) - len(readable),
            unreadable=lost,
        )

    def _answer_batch(
        self, batch: VideoBatch, rows: Sequence[QuestionRow], rows_of: Sequence[Sequence[int]]
    ) -> Iterator[AnsweredQuestion]:
        """Answer the questions about a chunk of videos."""
        # Encode the videos once.
        frames = batch.to(self.engine.device).frames
        if frames is None:  # no video of the chunk is readable
            return
        with autocast(self.precision, self.engine.device):
            videos = encode_clips(self.model, frames, normalize=self.normalize)
        # Answer the questions, a batch at a time.
        asked = [(row, place) for place, p in enumerate(batch.positions) for row in rows_of[p]]
        for piece in chunks(len(asked), size=self.question_chunk):
            ids, places = zip(*(asked[i] for i in piece), strict=True)
            video = videos.select(torch.tensor(places, device=self.engine.device))
            questions = [rows[row] for row in ids]
            logits = self._logits([row.question for row in questions], video)  # (Q, A)
            best, probabilities = best_answers(logits, num_known=len(self.labels))
            losses = self._losses(logits, [row.answer for row in questions])
            columns = (ids, best.tolist(), probabilities.tolist(), losses)
            yield from map(AnsweredQuestion._make, zip(*columns, strict=True))

    def _logits(self, questions: Sequence[str], video: VideoFeatures) -> Tensor:
        """(Q, A) float32 logits of Q questions about (Q, C, ...) features of their videos."""
        ids, mask = self.tokenize(questions)
        device = self.engine.device
        with autocast(self.precision, device):
            text = self.model.encode_text(ids.to(device), mask.to(device))
            return score_clips(partial(self.model.answer, text), video, how=self.clip_aggregation)

    def _losses(self, logits: Tensor, answers: Sequence[str]) -> list[float | None]:
        """(Q,) cross-entropy over all A answers, None for unknown ones."""
        # Unknown answers have no loss.
        labels = [self.labels.label_of(answer) for answer in answers]
        targets = torch.tensor(
            [NO_LABEL if label is None else label for label in labels], device=logits.device
        )
        losses = functional.cross_entropy(
            logits, targets, reduction="none", ignore_index=NO_LABEL
        ).tolist()
        return [None if label is None else loss for label, loss in zip(labels, losses, strict=True)]


def best_answers(logits: Tensor, *, num_known: int) -> tuple[Tensor, Tensor]:
    """The most probable of the known answers, which are the first ``num_known`` of (Q, A) logits.

    Returns:
        Labels (Q, K) int64 and probabilities among the known answers (Q, K) float64, best first,
        where K is 5 or ``num_known`` if that is less. Of equal logits the lower label comes first.
    """
    # float64, so that confident answers do not tie at 1.0.
    known = logits[:, :num_known].double()
    order = known.argsort(dim=1, descending=True, stable=True)[:, :NUM_BEST]  # (Q, K)
    return order, known.softmax(dim=1).gather(1, order)


def _check_numbers(answers: Sequence[AnsweredQuestion]) -> None:
    """Refuse NaN, of which no metric can be computed."""
    num_nan = sum(
        math.isnan(answer.probabilities[0]) or math.isnan(answer.loss or 0.0) for answer in answers
    )
    if num_nan:
        raise NotNumbersError(f"the logits of {num_nan} of {len(answers)} questions")


ANSWER_COLUMNS = ("questions", "share %", "majority %", "accuracy %")
LOST_QUESTIONS = {
    "num_unanswerable_questions": "could not be right, their answers are not in the map",
    "num_left_out_questions": "left out, their videos cannot be read",
}


def write_answers(
    folder: Path, outcome: QaOutcome, *, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """Write ``results_all.json`` and ``scores.json`` in the original's shapes; return the latter.

    Counts are added to the protocol, which says how the outcome was obtained.
    """
    counts = {
        "num_questions": len(outcome.rows),
        "num_videos": len({row.video_id for row in outcome.rows}),
        "num_unanswerable_questions": outcome.num_unanswerable,
        "num_unreadable_videos": len(outcome.unreadable),
        "num_left_out_questions": outcome.num_left_out,
    }
    scores = {**outcome.scores(), "protocol": {**counts, **protocol}}
    write_records(folder / "results_all.json", outcome.results())
    write_json(folder / "scores.json", scores)
    return scores


def answers_table(scores: Mapping[str, Any]) -> str:
    """The scores of :func:`write_answers` as a text table by answer type."""
    # A row per answer type, all questions last.
    counts, majority = scores["counts"], scores["majority"]
    width = max(len(kind) for kind in (*counts, "answer type"))
    lines = [f"{'answer type':{width}}" + "".join(f"{title:>11}" for title in ANSWER_COLUMNS)]
    for kind, (_, total) in sorted(counts.items(), key=lambda item: item[0] == "overall"):
        share = 100.0 * total / counts["overall"][1]
        numbers = (share, majority[f"{kind}_acc"], scores[f"{kind}_acc"])
        lines.append(f"{kind:{width}}{total:11d}" + "".join(f"{n:11.2f}" for n in numbers))
    # Top-5 accuracy, and questions that could not be answered.
    lines.append(f"right answer among the five best: {scores['top5_acc']:.2f} %")
    for key, meaning in LOST_QUESTIONS.items():
        if num_lost := scores["protocol"][key]:
            noun = "question" if num_lost == 1 else "questions"
            lines.append(f"{meaning}: {num_lost} {noun}")
    return "\n".join(lines)
