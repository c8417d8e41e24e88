"""Annotation files of video question answering, and the map from answers to their labels.

Questions are JSON lines with the keys ``question``, ``video_id``, ``answer`` and ``answer_type``
(the original's), or CSV with such columns; ``answer_type`` may be absent, its cells empty. The map
is one JSON object: answer -> label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alpro.datasets.annotations import read_rows
from alpro.datasets.row_parsing import FILE_COLUMN, Record, RowKind
from alpro.datasets.shared_rows import SharedRows
from alpro.errors import InputError, listed
from alpro.user_files import JsonError, UnreadableFileError, read_json

UNTYPED = "other"  # answer type of questions whose annotation names none
_EXAMPLE = '{"cat": 0, "dog": 1}'
_NUM_UNKNOWN = 3  # answers outside the map that a message names
_NO_ANSWER = "questions need an answer, also for inference; a placeholder counts as wrong"


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """One question about one video; the video's id carries no file extension."""

    question: str
    video_id: str
    answer: str
    answer_type: str


@dataclass(frozen=True)
class AnswerLabels:
    """Answer vocabulary: a label is a position in ``texts``."""

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def label_of(self, answer: str) -> int | None:
        """The label of an answer; None for an answer outside the map."""
        return self._labels.get(answer)

    def text_of(self, label: int) -> str:
        """The answer with this label."""
        assert 0 <= label < len(self), f"label {label} of {len(self)}"
        return self.texts[label]

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {text: label for label, text in enumerate(self.texts)}


def describe_unknown(answers: Iterable[str], labels: AnswerLabels) -> str:
    """Name a few answers outside the map, likely misspellings first."""
    known = {_plain(text): text for text in labels.texts}
    unknown = [answer for answer in answers if labels.label_of(answer) is None]
    meant = {answer: known.get(_plain(answer)) for answer in unknown}
    described = [
        repr(answer) if near is None
        else f"{answer!r} differs from {near!r} only in capitals or spaces"
        for answer, near in sorted(meant.items(), key=lambda item: item[1] is None)
    ]  # fmt: skip
    return listed(described, most=_NUM_UNKNOWN)


def _plain(answer: str) -> str:
    return answer.strip().casefold()


def read_questions(path: Path) -> SharedRows[QuestionRow]:
    """Read the questions of a file; see :func:`read_rows`."""
    return read_rows(path, QUESTIONS, QuestionRow)


def read_answer_labels(path: Path) -> AnswerLabels:
    """Read the map from answers to labels, which must be 0, 1, ..., each once.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    # Read one JSON object.
    where = f"ans2label_path: {path}"
    try:
        labels = read_json(path)
    except UnreadableFileError as error:
        raise InputError(
            f"{where}: {error.reason}; give a JSON object that numbers the answers, such as "
            f"{_EXAMPLE}"
        ) from error
    except JsonError as error:
        place = "" if error.line is None else f" at line {error.line}, column {error.column}"
        raise InputError(
            f"{where}: not JSON that can be read ({error.reason}{place}); it must be one object "
            f"that numbers the answers, each once, such as {_EXAMPLE}"
        ) from error
    if not isinstance(labels, dict):
        raise InputError(
            f"{where}: a JSON object is expected, not {type(labels).__name__}; it must number the "
            f"answers, such as {_EXAMPLE}"
        )
    # Check its labels, and put the answers in their order.
    if not labels:
        raise InputError(f"{where}: no answer in this file")
    _check_labels(labels, where=where)
    return AnswerLabels(tuple(sorted(labels, key=labels.__getitem__)))


def _check_labels(labels: dict[str, Any], *, where: str) -> None:
    # Labels must be whole numbers.
    for answer, label in labels.items():
        if not isinstance(label, int) or isinstance(label, bool):
            raise InputError(
                f"{where}: the label of {answer!r} must be a whole number, not "
                f"{type(label).__name__} ({label!r}); number the answers 0, 1, ..."
            )
    # They must be 0 to n - 1, each once; report all faults in one message.
    answers_of: dict[int, list[str]] = defaultdict(list)
    for answer, label in labels.items():
        answers_of[label].append(answer)
    described = {
        label: f"{label} ({listed([*map(repr, answers)])})"
        for label, answers in sorted(answers_of.items())
    }
    troubles = {
        "missing": [str(label) for label in range(len(labels)) if label not in answers_of],
        "given to several answers": [x for n, x in described.items() if len(answers_of[n]) > 1],
        "out of range": [x for n, x in described.items() if not 0 <= n < len(labels)],
    }
    if any(troubles.values()):
        reason = "; ".join(f"{fault}: {listed(some)}" for fault, some in troubles.items() if some)
        raise InputError(
            f"{where}: the labels of its {len(labels)} answers must be the numbers 0 to "
            f"{len(labels) - 1}, each once; {reason}. Number the answers without gaps, or give the "
            "file that the checkpoint was trained with"
        )


def _question_row(record: Record) -> QuestionRow:
    return QuestionRow(
        question=record.text("question"),
        video_id=record.identifier(*QUESTIONS.columns[1]),
        answer=record.text("answer", if_missing=_NO_ANSWER),
        answer_type=record.text("answer_type").strip() if record.has("answer_type") else UNTYPED,
    )


QUESTIONS = RowKind(
    noun="question",
    columns=(("question",), ("video_id", "clip_name", "videoid", FILE_COLUMN), ("answer",)),
    example='{"question": "what runs?", "video_id": "v7", "answer": "dog", "answer_type": "what"}',
    parse=_question_row,
    optional=("answer_type",),
)
