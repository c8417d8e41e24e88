"""What a check can find: kinds of findings, how bad they are, and what helps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["problem", "remark"]
"""Problems stop a run, or make its numbers wrong; remarks are to be looked at."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding."""

    level: Level
    title: str
    """A plural, as a count stands before it."""
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found, about one file, row, video or text."""

    kind: str
    """A key of `KINDS`."""
    subject: str
    """What it is about: an id, a place in a file, a text."""
    told: str = ""
    """What there is to say of it."""
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
        "videos or images that are not there",
        "Add the files, remove their rows, or set allow_missing_videos to 1.",
    ),
    "closed_folder": Kind(
        "problem",
        "folders that cannot be opened",
        "Give yourself the right to read them; until then what is in them counts as missing.",
    ),
    "ambiguous": Kind(
        "problem", "ids that name several files", "Rename the files, so that an id names one."
    ),
    "empty_file": Kind("problem", "empty files", "Fetch them again: a download was interrupted."),
    "unreadable": Kind(
        "problem",
        "files that cannot be read",
        "Fetch damaged ones again; remove those without a picture, and their rows.",
    ),
    "cut_off": Kind(
        "problem",
        "files whose decoding was cut off",
        "Transcode them (alpro prepare-videos), or remove their rows.",
    ),
    "shared_video": Kind(
        "problem",
        "videos that training and evaluation share",
        "Take them out of the training set: what is measured on them is too good.",
    ),
    "shared_content": Kind(
        "problem",
        "files that training and evaluation share under different ids",
        "Take them out of the training set: what is measured on them is too good.",
    ),
    "no_known_answer": Kind(
        "problem",
        "sets none of whose answers has a label",
        "Name as ans2label_path the file that belongs to the sets.",
    ),
    "too_short": Kind(
        "remark",
        "videos with fewer frames than are asked for",
        "Some of their frames are read more than once; lower num_frm, or leave them out.",
    ),
    "decode_errors": Kind(
        "remark",
        "files that are damaged in part",
        "Frames are lost, the rest is read; fetch them again if you can.",
    ),
    "wrong_header": Kind(
        "remark",
        "files that declare another length than they have",
        "They are read as far as they go; many are the ends of interrupted downloads.",
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
        "Keep one of each, or give it all their captions.",
    ),
    "same_file": Kind("remark", "ids that name the file of another id", "Use one id for a file."),
    "unused": Kind(
        "remark", "videos that no annotation names", "Annotate them, or remove them to save space."
    ),
    "repeated_row": Kind(
        "remark", "rows that say the same of the same video again", "Remove the repetitions."
    ),
    "equal_text": Kind(
        "remark",
        "captions that several videos have",
        "No model can tell which of the videos is meant; more specific captions help.",
    ),
    "cut_text": Kind(
        "remark",
        "texts that are cut at max_txt_len",
        "Raise max_txt_len (see the histogram), or shorten them.",
    ),
    "shared_text": Kind(
        "remark",
        "captions that training and evaluation share",
        "Fine for short ones; many long ones may mean that the sets overlap.",
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
    "missing": "Fetch the files that these links lead to.",
    "unreadable": "Fetch damaged ones again; remove those without a picture.",
    "cut_off": "Transcode them (alpro prepare-videos), or remove them.",
    "duplicate": "Keep one of each.",
}
"""What helps where there are no annotations, if it is something else."""


class Findings:
    """All that was found, by kind."""

    def __init__(self, *, has_rows: bool = True) -> None:
        """Begin.

        Args:
            has_rows: there are annotations, so that remedies may speak of their rows.
        """
        self._remedies = {} if has_rows else _WITHOUT_ROWS
        self.of_kind: dict[str, list[Finding]] = {kind: [] for kind in KINDS}

    def add(self, findings: Iterable[Finding]) -> None:
        """Take note of some more."""
        for finding in findings:
            self.of_kind[finding.kind].append(finding)

    def found(self) -> Iterator[tuple[str, Kind, list[Finding]]]:
        """The kinds of which there is anything, problems first."""
        for name, findings in self.of_kind.items():
            if findings:
                kind = KINDS[name]
                yield name, replace(kind, remedy=self._remedies.get(name, kind.remedy)), findings

    def count(self, level: Level) -> int:
        """How many findings are that bad."""
        return sum(len(findings) for _, kind, findings in self.found() if kind.level == level)
