"""What a converter makes, how it is compared with published counts, and how it is written."""

from __future__ import annotations

import filecmp
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from alpro.commands.cli import pluralize
from alpro.errors import InputError
from alpro.training.atomic_io import full_disk_ends_run, temporary_of

Row = dict[str, str]
"""What becomes one line of JSON: keys as the readers of `alpro.datasets` expect them."""
SPLITS = ("train", "val", "test")
LABEL_FILE = "train_ans2label.json"


@dataclass(frozen=True, slots=True)
class Published:
    """How much a file holds by what is published; ``None`` where nothing is."""

    source: str
    """Who says so."""
    num_rows: int | None = None
    num_videos: int | None = None


@dataclass(slots=True)
class Conversion:
    """Annotations in the project's form."""

    noun: str
    """What to call a row."""
    splits: dict[str, Sequence[Row]]
    """File name without ``.jsonl`` -> its rows."""
    published: dict[str, Published] = field(default_factory=dict)
    labels: dict[str, int] | None = None
    """Answer -> label, of question answering."""
    published_labels: Published | None = None
    notices: list[str] = field(default_factory=list)
    """What else the user must know."""


def differences(conversion: Conversion) -> list[str]:
    """Say where counts are not the published ones, and what that may mean."""
    found = []
    for split, rows in conversion.splits.items():
        if published := conversion.published.get(split):
            counts = (
                (conversion.noun, len(rows), published.num_rows),
                ("video", count_videos(rows), published.num_videos),
            )
            for noun, count, expected in counts:
                if expected is not None and count != expected:
                    found.append(_difference(f"{split}.jsonl", noun, count, expected, published))
    published = conversion.published_labels
    if conversion.labels is not None and published is not None:
        count, expected = len(conversion.labels), published.num_rows
        if expected is not None and count != expected:
            found.append(_difference(LABEL_FILE, "answer", count, expected, published))
    return found


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
    """How many different videos rows are about."""
    return len({row.get("clip_name") or row.get("image") or row["video_id"] for row in rows})


def finish(conversion: Conversion, output: Path, *, is_strict: bool, may_overwrite: bool) -> None:
    """Compare a conversion with what is published, write it, and tell what was written.

    Args:
        conversion: what to write.
        output: the folder of the files.
        is_strict: whether a count that is not the published one is an error.
        may_overwrite: whether files that say something else may be replaced.

    Raises:
        InputError: such a count or such a file; nothing has been written then.
    """
    for split, rows in conversion.splits.items():
        if not rows:
            raise InputError(f"{split}.jsonl: no {conversion.noun} is left for it in the source")
    found = differences(conversion)
    if found and is_strict:
        raise InputError("\n  ".join(["counts differ from the published ones:", *found]))
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
        print(f"{output / f'{split}.jsonl'}: {message}{_agreement(conversion, split, found)}")
    if conversion.labels is not None:
        print(f"{output / LABEL_FILE}: {pluralize(len(conversion.labels), 'answer')}")
    for notice in conversion.notices:
        print(f"note: {notice}")
    for warning in (*found, *_left(conversion, output)):
        print(f"warning: {warning}", file=sys.stderr)


def _left(conversion: Conversion, output: Path) -> list[str]:
    """Say which splits beside the new ones are older: they may share videos with them."""
    others = [output / f"{split}.jsonl" for split in SPLITS if split not in conversion.splits]
    return [
        f"{path} is not of this conversion and is left as it was; its videos may be in other "
        "splits now"
        for path in others
        if path.exists()
    ]


def _agreement(conversion: Conversion, split: str, found: Sequence[str]) -> str:
    published = conversion.published.get(split)
    if published is None:
        return ""
    differs = any(difference.startswith(f"{split}.jsonl: ") for difference in found)
    return ", not as published" if differs else ", as published"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write one JSON object per line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_labels(path: Path, labels: dict[str, int]) -> None:
    path.write_text(json.dumps(labels, ensure_ascii=False) + "\n", encoding="utf-8")


def write_all(writers: dict[Path, Callable[[Path], None]], *, may_overwrite: bool) -> None:
    """Write files so that an error or an interruption leaves none of them half written.

    Raises:
        InputError: one is there already and says something else; none has been changed.
        RunError: the disk is full.
    """
    temporaries = {path: temporary_of(path) for path in writers}
    try:
        for path, write in writers.items():
            with full_disk_ends_run(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(temporaries[path])
        for path, temporary in temporaries.items():
            kept = path.exists() and not may_overwrite
            if kept and not filecmp.cmp(path, temporary, shallow=False):
                raise InputError(
                    f"{path}: is there already and says something else; give another --output, or "
                    "--overwrite to replace it"
                )
        for path, temporary in temporaries.items():
            temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
