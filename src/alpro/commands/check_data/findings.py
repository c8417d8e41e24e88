"""Kinds of findings of a check, with their severity and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["problem", "remark"]
"""Problems stop a run or make its numbers wrong; remarks deserve a look."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding."""

    level: Level
    title: str
    """A plural, as a count stands before it."""
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about a file, row, video or text."""

    kind: str
    """A key of `KINDS`."""
    subject: str
    """An id, a place in a file, or a text."""
    message: str = ""
    """Details, may be empty."""
    where: str = ""
    """The set or the storage."""


KINDS: dict[str, Kind] = {
    "unreadable_annotations": Kind(
        "problem",
        "annotation files that cannot be read",
        "Correct the path, or the file as its message says.",
    ),
    "broken_row": Kind("problem", "broken rows of annotations", "Correct these rows."),
    "empty_text": Kind(
        "problem", "rows without text", "Write the captions or questions, or remove the rows."
    ),
    "missing": Kind(
        "problem",
        "missing videos or images",
        "Add the files, remove their rows, or set allow_missing_videos to 1.",
    ),
    "closed_folder": Kind(
        "problem",
        "folders that cannot be opened",
        "Grant read permission (chmod); until then their files count as missing.",
    ),
    "ambiguous": Kind(
        "problem", "ids that name several files", "Rename the files, so that an id names one."
    ),
    "empty_file": Kind("problem", "empty files", "Download them again: a download was cut off."),
    "unreadable": Kind(
        "problem",
        "files that cannot be read",
        "Download damaged ones again; remove those without a picture, and their rows.",
    ),
    "cut_off": Kind(
        "problem",
        "files whose decoding was cut off",
        "Transcode them (alpro prepare-videos), or remove their rows.",
    ),
    "shared_video": Kind(
        "problem",
        "videos that training and evaluation share",
        "Remove them from the training set: results measured on them are too good.",
    ),
    "shared_content": Kind(
        "problem",
        "files that training and evaluation share under different ids",
        "Remove them from the training set: results measured on them are too good.",
    ),
    "no_known_answer": Kind(
        "problem",
        "sets none of whose answers has a label",
        "Set ans2label_path to the file that belongs to the sets.",
    ),
    "too_short": Kind(
        "remark",
        "videos with fewer frames than num_frm",
        "Some of their frames are read more than once; lower num_frm, or leave them out.",
    ),
    "decode_errors": Kind(
        "remark",
        "files that are damaged in part",
        "Frames are lost, the rest is read; download them again if possible.",
    ),
    "wrong_header": Kind(
        "remark",
        "files whose declared length differs from the actual one",
        "They are read to their actual end; many are interrupted downloads.",
    ),
    "no_motion": Kind(
        "remark", "videos whose frames are all alike", "Look at a few: are they still images?"
    ),
    "no_picture": Kind(
        "remark", "videos of one colour", "Look at a few: a removed video often is a black one."
    ),
    "odd_duration": Kind(
        "remark", "videos much shorter or longer than the others", "Look at a few of them."
    ),
    "odd_size": Kind("remark", "files much smaller or larger than the others", "Look at a few."),
    "odd_shape": Kind(
        "remark",
        "very wide or very tall pictures",
        "Frames become squares: these are squeezed beyond recognition.",
    ),
    "duplicate": Kind(
        "remark",
        "files with the content of another",
        "Keep one copy, or give it the captions of all.",
    ),
    "same_file": Kind("remark", "ids that name the file of another id", "Use one id for a file."),
    "unused": Kind(
        "remark", "videos that no annotation names", "Annotate them, or remove them to save space."
    ),
    "repeated_row": Kind("remark", "repeated rows of the same video", "Remove the repetitions."),
    "equal_text": Kind(
        "remark",
        "captions that several videos have",
        "No model can tell the videos apart by them; more specific captions help.",
    ),
    "cut_text": Kind(
        "remark",
        "texts that are cut at max_txt_len",
        "Raise max_txt_len (see the histogram), or shorten them.",
    ),
    "shared_text": Kind(
        "remark",
        "captions that training and evaluation share",
        "Harmless for short captions; many long ones may mean that the sets overlap.",
    ),
    "shared_by_evaluations": Kind(
        "remark",
        "videos that validation and test share",
        "The best checkpoint is chosen with test videos; use others to validate.",
    ),
    "unknown_answer": Kind(
        "remark",
        "answers that have no label",
        "Their questions are left out of the training, and count as wrong in evaluation.",
    ),
}
"""In the order of the report."""
_WITHOUT_ROWS = {
    "missing": "Download the files that these links point to.",
    "unreadable": "Download damaged ones again; remove those without a picture.",
    "cut_off": "Transcode them (alpro prepare-videos), or remove them.",
    "duplicate": "Keep one of each.",
}
"""Remedies that differ if there are no annotations."""


class Findings:
    """All findings of a check, by kind."""

    def __init__(self, *, has_rows: bool = True) -> None:
        """Start without findings.

        Args:
            has_rows: there are annotations, so that remedies may speak of their rows.
        """
        self._remedies = {} if has_rows else _WITHOUT_ROWS
        self.of_kind: dict[str, list[Finding]] = {kind: [] for kind in KINDS}

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings."""
        for finding in findings:
            self.of_kind[finding.kind].append(finding)

    def by_kind(self) -> Iterator[tuple[str, Kind, list[Finding]]]:
        """The kinds that have findings, problems first."""
        for name, findings in self.of_kind.items():
            if findings:
                kind = KINDS[name]
                yield name, replace(kind, remedy=self._remedies.get(name, kind.remedy)), findings

    def count(self, level: Level) -> int:
        """Number of findings of this level."""
        return sum(len(findings) for _, kind, findings in self.by_kind() if kind.level == level)
