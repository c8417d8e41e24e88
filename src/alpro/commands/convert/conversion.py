"""Converted annotations: comparison with published counts, and writing."""

from __future__ import annotations

import filecmp
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from alpro.errors import InputError, pluralize
from alpro.training.atomic_io import full_disk_ends_run, temporary_of

Row = dict[str, str]
"""One line of JSON, with the keys that `alpro.datasets` reads."""
SPLITS = ("train", "val", "test")
LABEL_FILE = "train_ans2label.json"


@dataclass(frozen=True, slots=True)
class Published:
    """Published counts of a file; ``None`` where there are none."""

    source: str
    """The publication."""
    num_rows: int | None = None
    num_videos: int | None = None


@dataclass(slots=True)
class Conversion:
    """Annotations in the project's format."""

    noun: str
    """Noun for a row."""
    splits: dict[str, Sequence[Row]]
    """File name without ``.jsonl`` -> its rows."""
    published: dict[str, Published] = field(default_factory=dict)
    labels: dict[str, int] | None = None
    """Answer -> label, of question answering."""
    published_labels: Published | None = None
    notices: list[str] = field(default_factory=list)
    """Notes for the user."""


def differences(conversion: Conversion) -> list[str]:
    """Sentences on counts that differ from the published ones, with likely reasons."""
    sentences = []
    for split, rows in conversion.splits.items():
        if published := conversion.published.get(split):
            counts = (
                (conversion.noun, len(rows), published.num_rows),
                ("video", count_videos(rows), published.num_videos),
            )
            for noun, count, expected in counts:
                if expected is not None and count != expected:
                    sentences.append(
                        _difference(f"{split}.jsonl", noun, count, expected, published)
                    )
    published = conversion.published_labels
    if conversion.labels is not None and published is not None:
        count, expected = len(conversion.labels), published.num_rows
        if expected is not None and count != expected:
            sentences.append(_difference(LABEL_FILE, "answer", count, expected, published))
    return sentences


def _difference(name: str, noun: str, count: int, expected: int, published: Published) -> str:
    meaning = (
        "the source may be cut off, filtered, or only a part"
        if count < expected
        else "the source may be another version or another data set, or hold more than this split"
    )
    return (
        f"{name}: {pluralize(count, noun)}, but {expected:,} are published ({published.source}); "
        f"{meaning}"
    )


def count_videos(rows: Iterable[Row]) -> int:
    """Number of distinct videos of rows."""
    return len({row.get("clip_name") or row.get("image") or row["video_id"] for row in rows})


def finish(conversion: Conversion, output: Path, *, is_strict: bool, may_overwrite: bool) -> None:
    """Compare a conversion with published counts, write it, and print a summary.

    Args:
        conversion: what to write.
        output: the folder of the files.
        is_strict: whether a count other than the published one is an error.
        may_overwrite: whether files with other content may be replaced.

    Raises:
        InputError: such a count or file; nothing is written then.
    """
    for split, rows in conversion.splits.items():
        if not rows:
            raise InputError(f"{split}.jsonl: the source has no {conversion.noun} for it")
    # Wrong counts are an error in strict mode, before anything is written.
    differing = differences(conversion)
    if differing and is_strict:
        raise InputError("\n  ".join(["counts differ from the published ones:", *differing]))
    # One file per split, and the answers' labels.
    writers: dict[Path, Callable[[Path], None]] = {
        output / f"{split}.jsonl": partial(write_rows, rows=rows)
        for split, rows in conversion.splits.items()
    }
    if conversion.labels is not None:
        writers[output / LABEL_FILE] = partial(_write_labels, labels=conversion.labels)
    write_all(writers, may_overwrite=may_overwrite)
    for split, rows in conversion.splits.items():
        message = (
            f"{pluralize(len(rows), conversion.noun)} of {pluralize(count_videos(rows), 'video')}"
        )
        print(f"{output / f'{split}.jsonl'}: {message}{_agreement(conversion, split, differing)}")
    if conversion.labels is not None:
        print(f"{output / LABEL_FILE}: {pluralize(len(conversion.labels), 'answer')}")
    # Notes go to stdout, warnings to stderr.
    for notice in conversion.notices:
        print(f"note: {notice}")
    for warning in (*differing, *_left(conversion, output)):
        print(f"warning: {warning}", file=sys.stderr)


def _left(conversion: Conversion, output: Path) -> list[str]:
    """Warnings about older splits beside the new ones, which may share videos with them."""
    others = [output / f"{split}.jsonl" for split in SPLITS if split not in conversion.splits]
    return [
        f"{path} is not of this conversion and is kept; its videos may be in other splits now"
        for path in others
        if path.exists()
    ]


def _agreement(conversion: Conversion, split: str, differing: Sequence[str]) -> str:
    published = conversion.published.get(split)
    if published is None:
        return ""
    differs = any(difference.startswith(f"{split}.jsonl: ") for difference in differing)
    return ", not as published" if differs else ", as published"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_labels(path: Path, labels: dict[str, int]) -> None:
    path.write_text(json.dumps(labels, ensure_ascii=False) + "\n", encoding="utf-8")


def write_all(writers: dict[Path, Callable[[Path], None]], *, may_overwrite: bool) -> None:
    """Write all files or, on an error or interruption, none.

    Raises:
        InputError: a file exists with other content; none is changed then.
        RunError: the disk is full.
    """
    # Write everything to temporary files first.
    temporaries = {path: temporary_of(path) for path in writers}
    try:
        for path, write in writers.items():
            with full_disk_ends_run(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(temporaries[path])
        for path, temporary in temporaries.items():
            # An existing file with the same content is no obstacle.
            kept = path.exists() and not may_overwrite
            if kept and not filecmp.cmp(path, temporary, shallow=False):
                raise InputError(
                    f"{path}: exists with other content; choose another --output, or add "
                    "--overwrite to replace it"
                )
        for path, temporary in temporaries.items():
            temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
