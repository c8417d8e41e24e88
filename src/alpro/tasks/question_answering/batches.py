"""Training examples and batches of video question answering.

Questions about one video share its frames: an example is a video with several questions.

``B``: videos, ``C``: clips of each, ``Q``: questions, ``T``: frames of a clip, ``S``: side of a
frame in pixels, ``L``: text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.video_datasets import TensorBatch, TrainingSample, UnreadableVideo, stack_frames
from alpro.tasks.question_answering.annotations import AnswerLabels, QuestionRow


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


class LabelledRows(NamedTuple):
    """Questions whose answers have labels, in their order."""

    rows: SharedRows[QuestionRow]
    labels: Sequence[int]  # one for each row
    num_left_out: int  # questions without a label


def label_questions(rows: SharedRows[QuestionRow], labels: AnswerLabels) -> LabelledRows:
    """Look up the labels of the questions' answers, and leave out questions without one."""
    known = list(map(labels.label_of, rows.column("answer")))
    kept = [label for label in known if label is not None]
    labelled = rows.take([number for number, label in enumerate(known) if label is not None])
    return LabelledRows(labelled, kept, num_left_out=len(known) - len(kept))


def group_questions(labelled: LabelledRows, *, max_group: int) -> SharedRows[QuestionGroup]:
    """Gather the questions of each video, and cut them into groups of at most ``max_group``.

    Videos are in order of first appearance, and the questions of a video in their order.
    """
    if max_group < 1:
        raise ValueError(f"no groups of {max_group} questions")
    # Number the videos, and sort the questions by them.
    places: dict[str, int] = {}
    place_of = np.array(
        [places.setdefault(name, len(places)) for name in labelled.rows.column("video_id")],
        dtype=np.int64,
    )
    order = np.argsort(place_of, kind="stable")
    texts = labelled.rows.take(order).column("question")
    labels = np.asarray(labelled.labels, dtype=np.int64)[order].tolist()
    # Cut the questions of each video into groups.
    ends = np.cumsum(np.bincount(place_of)).tolist()

    def groups() -> Iterator[QuestionGroup]:
        for video_id, (first, end) in zip(places, pairwise([0, *ends]), strict=True):
            for start in range(first, end, max_group):
                group = slice(start, min(start + max_group, end))
                questions = tuple(map(LabelledQuestion, texts[group], labels[group]))
                yield QuestionGroup(video_id, questions)

    return pack_rows(groups(), QuestionGroup)


@dataclass
class QaBatch(TensorBatch):
    """Videos and questions about them; those about one video follow one another."""

    frames: Tensor  # (B, C, T, 3, S, S) uint8
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
        questions = [(row, each) for row, group in enumerate(groups) for each in group.questions]
        texts = [each.question for _, each in questions]
        ids, mask = tokenize(self.tokenizer, texts, max_length=self.max_length)
        return QaBatch(
            frames=stack_frames([sample.frames for sample in samples]),
            text_ids=ids,
            text_mask=mask,
            labels=torch.tensor([each.label for _, each in questions]),
            video_of_question=torch.tensor([row for row, _ in questions]),
            video_ids=[group.video_id for group in groups],
            unreadable=[video for sample in samples for video in sample.unreadable],
        )
