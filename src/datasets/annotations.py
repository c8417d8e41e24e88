"""Annotation files: rows that say something about a video.

Two formats: JSON lines with one object per row, as the original's, and CSV whose header names the
columns. Captions, for retrieval, have the keys ``caption`` and ``clip_name`` (or ``video_id``).
Further keys and columns are ignored.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from src.errors import InputError

_HASH_BLOCK_BYTES = 1 << 20

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One caption of one video; the video's id carries no file extension."""

    caption: str
    video_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """The named values of one row, and where the row stands, for messages."""

    where: str
    values: dict[str, Any]

    def has(self, key: str) -> bool:
        """Whether there is a value under this key."""
        return self.values.get(key) is not None

    def text(self, key: str, *other_names: str, if_missing: str = "") -> str:
        """The text under this key, or where that is absent, under one of its other names.

        Args:
            key: where the text is.
            other_names: where else it may be.
            if_missing: what to say of it to whoever has left it out.

        Raises:
            InputError: where no such value is there, or none that says something.
        """
        name = next((name for name in (key, *other_names) if self.has(name)), key)
        value = self.values.get(name)
        if value is None:
            found = sorted(key for key in self.values if self.has(key))
            remedy = f"; {if_missing}" if if_missing else ""
            raise InputError(
                f"{self.where}: field {key!r} is missing (fields found: {found}){remedy}"
            )
        if not isinstance(value, str):
            remedy = "; put it in quotes" if isinstance(value, int | float) else ""
            if isinstance(value, list):
                remedy = f"; write one row per {name}"
            raise InputError(
                f"{self.where}: field {name!r} must be text, not {type(value).__name__} "
                f"({value!r}){remedy}"
            )
        if not value.strip():
            raise InputError(
                f"{self.where}: field {name!r} is empty; fill it in, or remove the row"
            )
        return value


@dataclass(frozen=True, slots=True)
class RowKind(Generic[Row]):
    """What the rows of an annotation file hold."""

    noun: str
    """What to call a row's text in messages."""
    columns: tuple[tuple[str, ...], ...]
    """What a CSV header must name: each column's name, then what it may be called instead."""
    example: str
    """A row as JSON, for messages."""
    parse: Callable[[Record], Row]
    """Checks a record and makes a row of it."""


def read_rows(path: Path, kind: RowKind[Row]) -> list[Row]:
    """Read the rows of a ``.jsonl`` or ``.csv`` file, in file order; blank lines are skipped.

    Raises:
        InputError: naming file and line, for anything that is no row of this kind.
    """
    readers = {".jsonl": _jsonl_records, ".csv": _csv_records}
    suffix = path.suffix.lower()
    if suffix not in readers:
        known = ", ".join(readers)
        raise InputError(f"{path}: annotation files end in {known}, not in {suffix!r}")
    if not path.is_file():
        raise InputError(f"{path}: annotation file not found")
    try:
        rows = [kind.parse(record) for record in readers[suffix](path, kind)]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); convert the file to UTF-8") from error
    if not rows:
        raise InputError(f"{path}: no {kind.noun} in this file; it must have at least one")
    return rows


def read_captions(path: Path) -> list[CaptionRow]:
    """Read the captions of a ``.jsonl`` or ``.csv`` file; see :func:`read_rows`."""
    return read_rows(path, _CAPTIONS)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _jsonl_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                values = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{where}: not JSON ({error.msg} at column {error.colno}); each line must be "
                    f"one object such as {kind.example}"
                ) from error
            if not isinstance(values, dict):
                raise InputError(
                    f"{where}: a JSON object is expected, not {type(values).__name__}; write one "
                    f"object per line, such as {kind.example}"
                )
            yield Record(where, values)


def _csv_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            _check_header(header, kind=kind, where=f"{path}:1")
            for fields in reader:
                if len(fields) < 2 and not "".join(fields).strip():
                    continue
                where = f"{path}:{reader.line_num}"
                _check_width(fields, header=header, kind=kind, where=where)
                yield Record(where, _filled(header, fields, kind=kind))
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error


def _filled(header: list[str], fields: list[str], *, kind: RowKind[Any]) -> dict[str, str]:
    """The cells by column; an empty one of a column that may be absent says nothing."""
    needed = {name for names in kind.columns for name in names}
    cells = zip(header, fields, strict=True)
    return {name: field for name, field in cells if field.strip() or name in needed}


def _check_header(header: list[str], *, kind: RowKind[Any], where: str) -> None:
    for name, *other_names in kind.columns:
        if not {name, *other_names} & set(header):
            wanted = ", ".join(_with_other_names(*names) for names in kind.columns)
            raise InputError(
                f"{where}: no column {name!r} in the header {header}; the first line must name "
                f"the columns, among them {wanted}"
            )


def _with_other_names(name: str, *other_names: str) -> str:
    return f"{name} (or {' or '.join(other_names)})" if other_names else name


def _check_width(fields: list[str], *, header: list[str], kind: RowKind[Any], where: str) -> None:
    """Refuse a row that is not as wide as the header: a comma would cut its text in two."""
    count = len(fields)
    if count == len(header):
        return
    if count > len(header):
        remedy = f"put {kind.noun}s that contain commas in quotes"
    else:
        remedy = "separate the fields with commas, and leave none out"
    noun = "field" if count == 1 else "fields"
    raise InputError(f"{where}: {count} {noun}, but the header names {len(header)}; {remedy}")


def _caption_row(record: Record) -> CaptionRow:
    caption = record.text("caption")
    return CaptionRow(caption, record.text("clip_name", "video_id").strip())


_CAPTIONS = RowKind(
    noun="caption",
    columns=(("caption",), ("clip_name", "video_id")),
    example='{"caption": "a dog runs", "clip_name": "video7"}',
    parse=_caption_row,
)
