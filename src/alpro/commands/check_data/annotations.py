"""Reading the annotations of a set without stopping at broken rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from alpro.commands.check_data.findings import Finding, Findings
from alpro.commands.check_data.sources import CheckedSet, Rows
from alpro.datasets.annotations import CAPTIONS, CaptionRow, parsed_rows, records_of
from alpro.datasets.row_parsing import Refuse, RowError, RowKind
from alpro.errors import InputError, pluralize
from alpro.tasks.pretraining.annotations import IMAGES, VIDEOS
from alpro.tasks.pretraining.clips import subtitles
from alpro.tasks.question_answering.annotations import QUESTIONS, QuestionRow

MAX_BAD_ROWS = 2000  # listed for a file; further ones are only counted

_KINDS: dict[Rows, RowKind[Any]] = {
    "questions": QUESTIONS,
    "captioned images": IMAGES,
    "captioned videos": VIDEOS,
    "captions": CAPTIONS,
}


class AnnotatedText(NamedTuple):
    """A text about a video or an image."""

    video_id: str
    text: str
    answer: str | None = None
    """Of a question."""


@dataclass(frozen=True, slots=True)
class ReadSet:
    """Texts of a set, and the number of rows that could not be used."""

    source: CheckedSet
    texts: Sequence[AnnotatedText]
    num_broken: int
    num_left_out: int
    """Rows that training leaves out, too, since their ``txt_len`` is too large."""

    def video_ids(self) -> list[str]:
        """The videos or images that are named, once each."""
        return list(dict.fromkeys(row.video_id for row in self.texts))


def load_dataset(source: CheckedSet, findings: Findings) -> ReadSet:
    """Read all rows of a set; broken ones become findings."""
    texts: list[AnnotatedText] = []
    num_broken = num_left_out = 0

    def note(row: RowError) -> None:
        nonlocal num_broken
        num_broken += 1
        if num_broken <= MAX_BAD_ROWS:
            kind = "empty_text" if row.is_empty else "broken_row"
            findings.add([Finding(kind, f"{row.place}{row.number}", row.reason, str(source))])

    try:
        for row in _rows(source, refuse=note):
            if row is None:
                num_left_out += 1
            else:
                texts += _texts_of(row)
    except InputError as error:
        # The whole file is unreadable; the finding names it, so the reason need not.
        message = str(error)
        reason = message.removeprefix(f"{source.annotations}:")
        if reason != message:  # the finding names the file; then comes a line, or a space
            reason = reason.strip() if reason.startswith(" ") else f"line {reason}"
        name = str(source.annotations)
        findings.add([Finding("unreadable_annotations", name, reason, str(source))])
    if num_broken > MAX_BAD_ROWS:
        num_others = num_broken - MAX_BAD_ROWS
        reason = f"{pluralize(num_others, 'further row')} not listed"
        findings.add([Finding("broken_row", str(source.annotations), reason, str(source))])
    return ReadSet(source, texts, num_broken, num_left_out)


def _rows(source: CheckedSet, *, refuse: Refuse) -> Iterator[Any]:
    if source.rows != "clips":
        yield from parsed_rows(source.annotations, _KINDS[source.rows], refuse=refuse)
        return
    place = f"{source.annotations}: clip "
    for number, (clip_id, text) in enumerate(subtitles(source.annotations, refuse=refuse), start=1):
        if text is None:
            refuse(RowError(place, number, f"no text of {clip_id}", is_empty=True))
        else:
            yield AnnotatedText(clip_id, text)


def _texts_of(row: Any) -> list[AnnotatedText]:
    if isinstance(row, AnnotatedText):
        return [row]
    if isinstance(row, CaptionRow):
        return [AnnotatedText(row.video_id, row.caption)]
    if isinstance(row, QuestionRow):
        return [AnnotatedText(row.video_id, row.question, row.answer)]
    return [AnnotatedText(row.video_id, caption) for caption in row.captions]


def guess_rows(path: Path) -> Rows:
    """Return the kind of rows in a file, by the names in its first row."""
    guesses: tuple[Rows, ...] = ("questions", "captioned images", "captioned videos")
    for rows in guesses:
        kind = _KINDS[rows]
        try:
            first = next(records_of(path, kind), None)
        except InputError:
            continue  # reported when the file is read
        marks = kind.columns if rows == "captioned videos" else [kind.columns[0][:1]]
        if first is not None and all({*names} & {*first.values} for names in marks):
            return rows
    return "captions"
