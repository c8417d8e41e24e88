"""Annotation files: rows that say something about a video.

Two formats for all: JSON lines with one object per row, as the original's, and CSV whose header
names the columns. Some kinds of rows may also come as one JSON list of objects, or as tables.
Captions, for retrieval, have the keys ``caption`` (or ``text``) and ``clip_name`` (or
``video_id``). Further keys and columns are ignored.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from src.datasets.dataframes import Columns, read_parquet_table, read_pickled_table
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
    columns: tuple[tuple[str, ...], ...] = ()
    """What a row must have, as of its `RowKind`: a message tells all that is missing at once."""

    def has(self, key: str) -> bool:
        """Whether there is a value under this key."""
        return self.values.get(key) is not None

    def text(self, key: str, *other_names: str, if_missing: str = "") -> str:
        """The text under this key, or where the key is absent, under one of its other names.

        Args:
            key: where the text is.
            other_names: where else it may be.
            if_missing: what to say of it to whoever has left it out.

        Raises:
            InputError: where no such value is there, or none that says something.
        """
        name = self._name(key, *other_names)
        value = self.values.get(name)
        if value is None:
            raise InputError(self._missing(key, *other_names) + (if_missing and f"; {if_missing}"))
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

    def identifier(self, key: str, *other_names: str, if_missing: str = "") -> str:
        """The text or whole number under this key or another of its names, as stripped text."""
        name = self._name(key, *other_names)
        value = self.values.get(name)
        if type(value) is int:
            return str(value)
        if isinstance(value, float):  # what tables make of whole numbers where one is missing
            raise InputError(
                f"{self.where}: field {name!r} is {value!r}, but ids must be text or whole "
                "numbers; is one missing?"
            )
        return self.text(key, *other_names, if_missing=if_missing).strip()

    def _missing(self, *asked: str) -> str:
        """Says that a value is missing, and which else of the columns are."""
        columns = self.columns if asked in self.columns else (asked, *self.columns)
        missing = []
        for names in columns:
            name = self._name(*names)
            if name not in self.values:
                missing.append(_with_other_names(repr(name), *names[1:]))
            elif not self.has(name):  # no other column stands in for it
                missing.append(repr(name))
        fields = f"field {missing[0]} is" if len(missing) == 1 else f"fields {_all(missing)} are"
        found = sorted(key for key in self.values if self.has(key))
        return f"{self.where}: {fields} missing (fields found: {found})"

    def _name(self, key: str, *other_names: str) -> str:
        """The first of these names that the row has, even where it says nothing there.

        Another column never stands in for an empty one: it may hold something else. All rows of a
        table have the same names, so that one column is chosen for all of them.
        """
        return next((name for name in (key, *other_names) if name in self.values), key)


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
    optional: tuple[str, ...] = ()
    """What else `parse` looks at where it is there."""
    suffixes: tuple[str, ...] = (".jsonl", ".csv")
    """Files such rows may come in, among those of `_READERS`."""

    @property
    def names(self) -> set[str]:
        """All names of columns that `parse` looks at."""
        return {name for names in self.columns for name in names} | set(self.optional)


def read_rows(path: Path, kind: RowKind[Row]) -> list[Row]:
    """Read the rows of a file, in file order; blank lines are skipped.

    Raises:
        InputError: naming file and line, for anything that is no row of this kind.
    """
    suffix = path.suffix.lower()
    if suffix not in kind.suffixes:
        known = ", ".join(kind.suffixes)
        raise InputError(f"{path}: annotation files end in {known}, not in {suffix!r}")
    if not path.is_file():
        raise InputError(f"{path}: annotation file not found")
    try:
        rows = [kind.parse(record) for record in _READERS[suffix](path, kind)]
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
            yield Record(where, values, kind.columns)


def _json_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not JSON ({error.msg} at line {error.lineno}, column {error.colno}); the "
            f"file must be one list of objects such as {kind.example}"
        ) from error
    if not isinstance(entries, list):
        raise InputError(
            f"{path}: a JSON list is expected, not {type(entries).__name__}; list objects such as "
            f"{kind.example}"
        )
    for number, values in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        if not isinstance(values, dict):
            raise InputError(
                f"{where}: a JSON object is expected, not {type(values).__name__}, such as "
                f"{kind.example}"
            )
        yield Record(where, values, kind.columns)


def _parquet_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    return _table_records(path, read_parquet_table(path, kind.names), kind=kind)


def _pickle_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    return _table_records(path, read_pickled_table(path, kind.names), kind=kind)


def _table_records(path: Path, columns: Columns, *, kind: RowKind[Any]) -> Iterator[Record]:
    names = list(columns)
    _check_header(names, kind=kind, where=f"{path}", whole="the table")
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Record(f"{path}: row {number}", dict(zip(names, values, strict=True)))


def _csv_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            _check_header(header, kind=kind, where=f"{path}:1")
            needed = {name for names in kind.columns for name in names}
            for fields in reader:
                if len(fields) < 2 and not "".join(fields).strip():
                    continue
                where = f"{path}:{reader.line_num}"
                _check_width(fields, header=header, kind=kind, where=where)
                yield Record(where, _filled(header, fields, needed=needed))
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error


def _filled(header: list[str], fields: list[str], *, needed: set[str]) -> dict[str, str]:
    """The cells by column; an empty one of a column that may be absent says nothing."""
    cells = dict(zip(header, fields, strict=True))
    for name in cells.keys() - needed:
        if not cells[name].strip():
            del cells[name]
    return cells


def _check_header(
    header: list[str], *, kind: RowKind[Any], where: str, whole: str = "the first line"
) -> None:
    for name, *other_names in kind.columns:
        if not {name, *other_names} & set(header):
            wanted = ", ".join(_with_other_names(*names) for names in kind.columns)
            raise InputError(
                f"{where}: no column {name!r} in the header {header}; {whole} must name "
                f"the columns, among them {wanted}"
            )


def _with_other_names(name: str, *other_names: str) -> str:
    return f"{name} (or {' or '.join(other_names)})" if other_names else name


def _all(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]])


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
    caption = record.text("caption", "text")
    return CaptionRow(caption, record.text("clip_name", "video_id").strip())


_CAPTIONS = RowKind(
    noun="caption",
    columns=(("caption", "text"), ("clip_name", "video_id")),
    example='{"caption": "a dog runs", "clip_name": "video7"}',
    parse=_caption_row,
)
_READERS = {
    ".jsonl": _jsonl_records,
    ".json": _json_records,
    ".csv": _csv_records,
    ".parquet": _parquet_records,
    ".pkl": _pickle_records,
}
