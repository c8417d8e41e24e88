"""MSRVTT-QA and MSVD-QA: questions generated from captions (Xu et al., ACM Multimedia 2017)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from alpro.commands.convert.conversion import Conversion, Published, Row
from alpro.commands.convert.msvd import read_mapping
from alpro.commands.convert.sources import SourceFile, Sources, field
from alpro.errors import InputError, pluralize
from alpro.tasks.question_answering.annotations import UNTYPED

ANSWER_TYPES = ("what", "who", "how", "when", "where")
"""A question's type is its first word."""
NUM_MSRVTT_ANSWERS = 1500
"""Answers that ClipBERT and ALPRO can give: the most frequent ones of training."""
FILES = {"train": "train_qa.json", "val": "val_qa.json", "test": "test_qa.json"}
_PAPER = "Xu et al., ACM Multimedia 2017"
_MSRVTT = {"train": 158581, "val": 12278, "test": 72821}
_MSVD = {"train": 30933, "val": 6415, "test": 13157}
_MSVD_ANSWERS = Published("num_labels of ALPRO's config_release/msvd_qa.json", 2423)


def convert_msrvtt_qa(sources: Sources, *, num_answers: int | None = None) -> Conversion:
    """Convert ``train_qa.json``, ``val_qa.json`` and ``test_qa.json`` of MSRVTT-QA.

    Args:
        sources: where these are.
        num_answers: number of training answers with a label, the most frequent ones; 0 for
            all, ``None`` for `NUM_MSRVTT_ANSWERS`.
    """
    splits, notices = _read(sources, "video{}".format, of="MSRVTT-QA")
    num = NUM_MSRVTT_ANSWERS if num_answers is None else num_answers
    conversion = _conversion(splits, _MSRVTT, labels=_most_frequent(splits["train"], num=num))
    conversion.notices += notices
    conversion.notices.append(
        "ties at the end of the list of answers are broken in alphabetical order; "
        "with a published checkpoint, use the train_ans2label.json it was trained with"
    )
    return conversion


def convert_msvd_qa(
    sources: Sources, *, num_answers: int | None = None, ids: str = "youtube"
) -> Conversion:
    """Convert the three files of MSVD-QA.

    Args:
        sources: where these are, and ``youtube_mapping.txt``, which names the clips.
        num_answers: number of training answers with a label, the most frequent ones; 0 for
            all; ``None``: all answers of the three splits, as ALPRO's list.
        ids: ids of clips, their ``youtube`` names or ``vid`` numbers.
    """
    if ids == "vid":
        name_of: Callable[[int], str] = "vid{}".format
    else:
        name_of = _youtube_names(sources)
    splits, notices = _read(sources, name_of, of="MSVD-QA")
    if num_answers is None:
        # As the published list: the answers of all three splits.
        labels = _numbered({row["answer"] for row in chain(*splits.values())})
    else:
        labels = _most_frequent(splits["train"], num=num_answers)
    conversion = _conversion(splits, _MSVD, labels=labels)
    conversion.notices += notices
    if num_answers is None:
        conversion.published_labels = _MSVD_ANSWERS
    return conversion


def _youtube_names(sources: Sources) -> Callable[[int], str]:
    names, where = read_mapping(sources, of="MSVD-QA")

    def name_of(number: int) -> str:
        if f"vid{number}" not in names:
            raise InputError(f"{where}: no line for vid{number}, which has questions")
        return names[f"vid{number}"]

    return name_of


def _conversion(
    splits: dict[str, list[Row]], num_questions: dict[str, int], *, labels: dict[str, int]
) -> Conversion:
    # Notes on untyped questions and on answers without a label.
    published = {split: Published(_PAPER, num) for split, num in num_questions.items()}
    conversion = Conversion("question", dict(splits), published, labels)
    untyped = sum(row["answer_type"] == UNTYPED for row in chain(*splits.values()))
    if untyped:
        conversion.notices.append(
            f"{pluralize(untyped, 'question')} of type {UNTYPED!r}: the first word is not one of "
            + ", ".join(ANSWER_TYPES)
        )
    for split, rows in splits.items():
        unknown = sum(row["answer"] not in labels for row in rows)
        if unknown:
            share = unknown / len(rows)
            conversion.notices.append(
                f"{split}.jsonl: {unknown:,} of {pluralize(len(rows), 'question')} ({share:.1%}) "
                "have answers without a label; "
                + ("they are not trained on" if split == "train" else "they count as wrong")
            )
    return conversion


def _most_frequent(rows: Sequence[Row], *, num: int) -> dict[str, int]:
    """Number the most frequent answers (0: all) in alphabetical order."""
    counts = Counter(row["answer"] for row in rows)
    in_order = sorted(counts, key=lambda answer: (-counts[answer], answer))
    return _numbered(in_order[: num or None])


def _numbered(answers: Iterable[str]) -> dict[str, int]:
    return {answer: label for label, answer in enumerate(sorted(answers))}


def _read(
    sources: Sources, name_of: Callable[[int], str], *, of: str
) -> tuple[dict[str, list[Row]], list[str]]:
    """The questions of each split, and notes on those that are left out."""
    splits, notices = {}, []
    for split, name in FILES.items():
        rows = _read_file(sources.need(name, of=of), name_of)
        splits[split] = [row for row in rows if row["question"] and row["answer"]]
        if num_empty := len(rows) - len(splits[split]):
            left_out = pluralize(num_empty, "entry", "entries")
            notices.append(f"{split}.jsonl: {left_out} with an empty question or answer left out")
    return splits, notices


def _read_file(file: SourceFile, name_of: Callable[[int], str]) -> list[Row]:
    rows = []
    for number, entry in enumerate(file.json(list, expected="a list of questions")):
        where = f"{file.where}: entry {number}"
        question = field(entry, "question", str, where=where).strip()
        video = field(entry, "video_id", (int, str), where=where)
        rows.append(
            {
                "question": question,
                "answer": field(entry, "answer", str, where=where).strip(),
                "video_id": name_of(video) if isinstance(video, int) else video,
                "answer_type": _type_of(question),
            }
        )
    return rows


def _type_of(question: str) -> str:
    first = question.split(maxsplit=1)[0].lower() if question else ""
    return first if first in ANSWER_TYPES else UNTYPED
