"""Video question answering as classification, for validation and inference alike.

Shapes: B videos, Q questions, C clips of each video, A answers that the model has logits for,
K best answers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from alpro.datasets.batches import UnreadableVideo
from alpro.datasets.qa_annotations import AnswerLabels, QuestionRow
from alpro.datasets.videos import VideoBatch
from alpro.distributed.engine import Engine, autocast
from alpro.errors import NotNumbersError
from alpro.evaluation.encoding import Tokenize, chunks, encode_clips, score_clips
from alpro.evaluation.evaluation_set import (
    EvaluationSet,
    Progress,
    check_unreadable,
    evaluation_mode,
    readable_rows,
    silent_progress,
)
from alpro.metrics.question_answering import AccuracyByType, majority_correct, tally
from alpro.modeling.contracts import AnswerClassifier, VideoFeatures

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


NO_LABEL = -100  # of an answer outside the map; cross_entropy leaves it out


class QuestionAnsweringEvaluator:
    """Encodes each video of a set once and answers the questions about it.

    Questions are fused with their video in pieces that are cut within a chunk of videos, so an
    answer, to its last bit, does not depend on how many ranks there are.
    """

    def __init__(
        self,
        model: AnswerClassifier,
        *,
        labels: AnswerLabels,
        tokenize: Tokenize,
        normalize: Callable[[Tensor], Tensor],
        engine: Engine,
        precision: str,
        question_chunk: int,
        clip_aggregation: str = "mean",
        allow_missing_videos: bool,
        progress: Progress = silent_progress,
    ) -> None:
        """Collect what stays the same from set to set.

        Args:
            model: what is evaluated; it has a logit for each known answer, and may have more.
            labels: the known answers, which alone are given.
            tokenize: texts to (ids, mask).
            normalize: uint8 frames to what the model expects.
            engine: the job.
            precision: number format of the forward pass.
            question_chunk: questions fused with their videos at once.
            clip_aggregation: how the logits of a video's clips become one, see
                :func:`alpro.evaluation.clips.aggregate_clips`.
            allow_missing_videos: leave out unreadable videos, instead of an error.
            progress: shows a progress bar over an iterable.
        """
        assert model.num_labels >= len(labels)
        self.model = model
        self._labels = labels
        self._tokenize = tokenize
        self._normalize = normalize
        self._engine = engine
        self._precision = precision
        self._question_chunk = question_chunk
        self.clip_aggregation = clip_aggregation
        self._allow_missing = allow_missing_videos
        self._progress = progress

    @torch.inference_mode()
    def run(self, data: EvaluationSet[QuestionRow]) -> QaOutcome:
        """Answer the questions of a set."""
        own: list[AnsweredQuestion] = []
        unreadable: list[UnreadableVideo] = []
        rows_of = data.rows_by_position()
        with evaluation_mode(self.model):
            for batch in self._progress(data.loader, "answering questions", "batch"):
                unreadable += batch.unreadable
                own += self._answer_batch(batch, data.rows, rows_of)
        gathered = self._engine.gather_objects((own, unreadable))
        lost = list(chain.from_iterable(part for _, part in gathered))
        check_unreadable(data, lost, allowed=self._allow_missing)
        readable = readable_rows(data, lost)
        answers = sorted(chain.from_iterable(part for part, _ in gathered))
        assert [answer.question_id for answer in answers] == readable
        _check_numbers(answers)
        return QaOutcome(
            labels=self._labels,
            rows=[data.rows[row] for row in readable],
            answers=answers,
            num_left_out=len(data.rows) - len(readable),
            unreadable=lost,
        )

    def _answer_batch(
        self, batch: VideoBatch, rows: Sequence[QuestionRow], rows_of: Sequence[Sequence[int]]
    ) -> Iterator[AnsweredQuestion]:
        """Answer the questions about a chunk of videos."""
        frames = batch.to(self._engine.device).frames
        if frames is None:  # no video of the chunk is readable
            return
        with autocast(self._precision, self._engine.device):
            videos = encode_clips(self.model, frames, normalize=self._normalize)
        asked = [(row, place) for place, p in enumerate(batch.positions) for row in rows_of[p]]
        for piece in chunks(len(asked), size=self._question_chunk):
            ids, places = zip(*(asked[i] for i in piece), strict=True)
            video = videos.select(torch.tensor(places, device=self._engine.device))
            questions = [rows[row] for row in ids]
            logits = self._logits([row.question for row in questions], video)  # (Q, A)
            best, probabilities = best_answers(logits, num_known=len(self._labels))
            losses = self._losses(logits, [row.answer for row in questions])
            columns = (ids, best.tolist(), probabilities.tolist(), losses)
            yield from map(AnsweredQuestion._make, zip(*columns, strict=True))

    def _logits(self, questions: Sequence[str], video: VideoFeatures) -> Tensor:
        """(Q, A) float32 logits of Q questions about (Q, C, ...) features of their videos."""
        ids, mask = self._tokenize(questions)
        device = self._engine.device
        with autocast(self._precision, device):
            text = self.model.encode_text(ids.to(device), mask.to(device))
            return score_clips(partial(self.model.answer, text), video, how=self.clip_aggregation)

    def _losses(self, logits: Tensor, answers: Sequence[str]) -> list[float | None]:
        """(Q,) cross-entropy over all A answers, ``None`` for those outside the map."""
        labels = [self._labels.label_of(answer) for answer in answers]
        targets = torch.tensor(
            [NO_LABEL if label is None else label for label in labels], device=logits.device
        )
        losses = functional.cross_entropy(
            logits, targets, reduction="none", ignore_index=NO_LABEL
        ).tolist()
        return [None if label is None else loss for label, loss in zip(labels, losses, strict=True)]


def best_answers(logits: Tensor, *, num_known: int) -> tuple[Tensor, Tensor]:
    """The most probable of the known answers, which are the first ``num_known`` of all.

    Args:
        logits: (Q, A) float32; those beyond the known answers are not looked at.
        num_known: at most A.

    Returns:
        Labels (Q, K) int64 and probabilities among the known answers (Q, K) float64, best first,
        where K is 5 or ``num_known`` if that is less. Of equal logits the lower label comes first.
    """
    known = logits[:, :num_known].double()
    order = known.argsort(dim=1, descending=True, stable=True)[:, :NUM_BEST]  # (Q, K)
    return order, known.softmax(dim=1).gather(1, order)


def _check_numbers(answers: Sequence[AnsweredQuestion]) -> None:
    """Refuse answers that no metric can be made of."""
    spoilt = sum(
        math.isnan(answer.probabilities[0]) or math.isnan(answer.loss or 0.0) for answer in answers
    )
    if spoilt:
        raise NotNumbersError(f"the logits of {spoilt} of {len(answers)} questions")
