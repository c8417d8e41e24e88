"""Reading the annotations of a set, whatever they hold, without stopping at rows that are wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from src.datasets.annotations import read_captions
from src.datasets.captioned import Media, read_captioned
from src.datasets.questions import read_questions
from src.errors import InputError
from src.tools.checking.findings import Finding, Findings
from src.tools.checking.rows_left import BadRow, read_rows_left
from src.tools.checking.sources import CheckedSet, Rows


class AnnotatedText(NamedTuple):
    """A text about a video or an image."""

    video_id: str
    text: str
    answer: str | None = None
    """Of a question."""


@dataclass(frozen=True, slots=True)
class ReadSet:
    """What the annotations of a set hold."""

    source: CheckedSet
    texts: Sequence[AnnotatedText]
    num_broken: int
    num_left_out: int
    """Rows that training leaves out, too, since their ``txt_len`` is too large."""

    def video_ids(self) -> list[str]:
        """The videos or images that are named, once each."""
        return list(dict.fromkeys(row.video_id for row in self.texts))


def read_set(source: CheckedSet, findings: Findings) -> ReadSet:
    """Read all rows of a set; what is wrong with the others becomes findings."""
    reader = _Reader(source.rows)
    try:
        left = read_rows_left(source.annotations, reader.read)
    except (InputError, OSError) as error:
        message = str(error)
        told = message.removeprefix(f"{source.annotations}:")
        if told != message:  # the finding names the file; then comes a line, or a space
            told = told.strip() if told.startswith(" ") else f"line {told}"
        findings.add([_unreadable(source, told)])
        return ReadSet(source, [], 0, 0)
    if not left.good and not left.bad:
        findings.add([_unreadable(source, "there is no row in this file")])
    findings.add(_finding(row, source) for row in left.bad)
    if left.num_unseen:
        told = f"{left.num_unseen:,} rows after {len(left.bad):,} broken ones were not looked at"
        findings.add([Finding("broken_row", str(source.annotations), told, str(source))])
    return ReadSet(source, left.good, len(left.bad) + left.num_unseen, reader.num_left_out)


def _unreadable(source: CheckedSet, told: str) -> Finding:
    return Finding("unreadable_annotations", str(source.annotations), told, str(source))


def _finding(row: BadRow, source: CheckedSet) -> Finding:
    kind = "empty_text" if row.is_empty else "broken_row"
    return Finding(kind, row.place, row.reason, str(source))


class _Reader:
    """Reads files with one kind of rows."""

    def __init__(self, rows: Rows) -> None:
        readers: dict[Rows, Callable[[Path], list[AnnotatedText]]] = {
            "captions": self._captions,
            "questions": self._questions,
            "captioned videos": lambda path: self._captioned(path, "video"),
            "captioned images": lambda path: self._captioned(path, "image"),
        }
        self.read = readers[rows]
        self.num_left_out = 0

    def _captions(self, path: Path) -> list[AnnotatedText]:
        return [AnnotatedText(row.video_id, row.caption) for row in read_captions(path)]

    def _questions(self, path: Path) -> list[AnnotatedText]:
        return [
            AnnotatedText(row.video_id, row.question, row.answer) for row in read_questions(path)
        ]

    def _captioned(self, path: Path, media: Media) -> list[AnnotatedText]:
        table = read_captioned(path, media)
        self.num_left_out += table.num_left_out
        return [
            AnnotatedText(item.video_id, caption)
            for item in table.items
            for caption in item.captions
        ]


def guess_rows(path: Path) -> Rows:
    """What a file holds, as its ending and the names in its first row tell."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return "captioned images"
    names: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if suffix == ".csv":
                names = set(next(csv.reader(file), []))
            elif suffix == ".jsonl":
                first = json.loads(next((line for line in file if line.strip()), "{}"))
                names = set(first) if isinstance(first, dict) else set()
    except (OSError, ValueError, csv.Error):
        pass  # what is wrong is told when the file is read
    if "question" in names:
        return "questions"
    return "captioned images" if "image" in names else "captioned videos"
