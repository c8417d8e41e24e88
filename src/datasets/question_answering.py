"""Training examples and batches of video question answering.

Questions about one video share its frames: an example is a video with several questions.

Shapes: ``B`` videos, ``Q`` questions, ``T`` frames, ``S`` side of the square frames in pixels,
``L`` text tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.datasets.batches import TensorBatch
from src.datasets.questions import AnswerLabels, QuestionRow
from src.datasets.tokenization import Tokenizer, tokenize
from src.datasets.unreadable import UnreadableVideo
from src.datasets.videos import TrainingSample


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question and the label of its answer."""

    question: str
    label: int


@dataclass(frozen=True, slots=True)
class QuestionGroup:
    """Questions about one video that are trained on together."""

    video_id: str
    questions: tuple[LabelledQuestion, ...]


def label_questions(
    rows: Iterable[QuestionRow], labels: AnswerLabels
) -> tuple[list[tuple[QuestionRow, int]], int]:
    """Put the label of its answer beside each question.

    Returns:
        The questions whose answer has a label, in their order, and how many others were left out.
    """
    labelled, num_left_out = [], 0
    for row in rows:
        label = labels.label_of(row.answer)
        if label is None:
            num_left_out += 1
        else:
            labelled.append((row, label))
    return labelled, num_left_out


def group_questions(
    labelled: Iterable[tuple[QuestionRow, int]], *, max_group: int
) -> list[QuestionGroup]:
    """Gather the questions of each video, and cut them into groups of at most ``max_group``.

    Videos stand in order of first appearance, and the questions of a video in their order.
    """
    if max_group < 1:
        raise ValueError(f"no groups of {max_group} questions")
    questions_of: dict[str, list[LabelledQuestion]] = defaultdict(list)
    for row, label in labelled:
        questions_of[row.video_id].append(LabelledQuestion(row.question, label))
    return [
        QuestionGroup(video_id, tuple(questions[start : start + max_group]))
        for video_id, questions in questions_of.items()
        for start in range(0, len(questions), max_group)
    ]


@dataclass
class QaBatch(TensorBatch):
    """Videos and questions about them; those about one video follow one another."""

    frames: Tensor  # (B, T, 3, S, S) uint8
    text_ids: Tensor  # (Q, L) int64
    text_mask: Tensor  # (Q, L) int64, 1 on tokens
    labels: Tensor  # (Q,) int64
    video_of_question: Tensor  # (Q,) int64, row of ``frames``
    video_ids: list[str]  # of the B videos
    unreadable: list[UnreadableVideo]


@dataclass(frozen=True)
class QaCollate:
    """Make a batch of training samples; a class, so that spawned workers can receive it."""

    tokenizer: Tokenizer
    max_length: int

    def __call__(self, samples: Sequence[TrainingSample[QuestionGroup]]) -> QaBatch:
        """Stack the frames and tokenize all questions together."""
        groups = [sample.item for sample in samples]
        asked = [(row, one) for row, group in enumerate(groups) for one in group.questions]
        texts = [one.question for _, one in asked]
        ids, mask = tokenize(self.tokenizer, texts, max_length=self.max_length)
        return QaBatch(
            frames=torch.from_numpy(np.stack([sample.frames for sample in samples])),
            text_ids=ids,
            text_mask=mask,
            labels=torch.tensor([one.label for _, one in asked]),
            video_of_question=torch.tensor([row for row, _ in asked]),
            video_ids=[group.video_id for group in groups],
            unreadable=[video for sample in samples for video in sample.unreadable],
        )
