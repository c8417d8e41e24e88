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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from src.datasets.dataframes import Columns, read_parquet_tables, read_pickled_table
from src.datasets.records import Record, RowError, RowKind, with_other_names
from src.datasets.rows import SharedRows, pack_rows
from src.errors import InputError

_HASH_BLOCK_BYTES = 1 << 20
_DECODER = json.JSONDecoder()

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One caption of one video; the video's id carries no file extension."""

    caption: str
    video_id: str


def read_rows(path: Path, kind: RowKind[Row], row_type: type[Row]) -> SharedRows[Row]:
    """Read and pack the rows of a file; see :func:`parsed_rows`."""
    return pack_rows(parsed_rows(path, kind), row_type)


def parsed_rows(path: Path, kind: RowKind[Row]) -> Iterator[Row]:
    """Read the rows of a file one by one, in file order; blank lines are skipped.

    Raises:
        InputError: naming file and line, for anything that is no row of this kind, or if there is
            none.
    """
    suffix = path.suffix.lower()
    if suffix not in kind.suffixes:
        known = ", ".join(kind.suffixes)
        raise InputError(f"{path}: annotation files end in {known}, not in {suffix!r}")
    if not path.is_file():
        raise InputError(f"{path}: annotation file not found")
    parse, record = kind.parse, None
    try:
        for record in _READERS[suffix](path, kind):
            yield parse(record)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); convert the file to UTF-8") from error
    if record is None:
        empty = "" if path.stat().st_size else ", which is empty"
        raise InputError(f"{path}: no {kind.noun} in this file{empty}; it must have at least one")


def read_captions(path: Path) -> SharedRows[CaptionRow]:
    """Read the captions of a ``.jsonl`` or ``.csv`` file; see :func:`read_rows`."""
    return read_rows(path, _CAPTIONS, CaptionRow)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _jsonl_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    place, columns = f"{path}:", kind.columns
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                values = _json_of(line)
            except json.JSONDecodeError as error:
                told = f"not JSON ({error.msg} at column {error.colno}); each line must be one"
                raise RowError(place, number, f"{told} object such as {kind.example}") from error
            if not isinstance(values, dict):
                told = f"a JSON object is expected, not {type(values).__name__}; write one object"
                raise RowError(place, number, f"{told} per line, such as {kind.example}")
            yield Record(place, number, values, columns)


def _json_of(line: str) -> Any:
    """What a line of JSON says, in half the time that `json.loads` takes for it."""
    try:
        value, end = _DECODER.raw_decode(line)
    except json.JSONDecodeError:  # or spaces come first
        return json.loads(line)
    return value if line[end:] in ("\n", "") else json.loads(line)


def _json_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    text = path.read_text(encoding="utf-8-sig")
    if not text.strip():
        return
    try:
        entries = json.loads(text)
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
    place, columns = f"{path}: entry ", kind.columns
    for number, values in enumerate(entries, start=1):
        if not isinstance(values, dict):
            told = f"a JSON object is expected, not {type(values).__name__}, such as {kind.example}"
            raise RowError(place, number, told)
        yield Record(place, number, values, columns)


def _parquet_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    return _table_records(path, read_parquet_tables(path, kind.names), kind=kind)


def _pickle_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    return _table_records(path, [read_pickled_table(path, kind.names)], kind=kind)


def _table_records(
    path: Path, pieces: Iterable[Columns], *, kind: RowKind[Any]
) -> Iterator[Record]:
    place, number = f"{path}: row ", 0
    for columns in pieces:
        names = list(columns)
        _check_header(names, kind=kind, where=f"{path}", whole="the table")
        for values in zip(*columns.values(), strict=True):
            number += 1
            yield Record(place, number, dict(zip(names, values, strict=True)))


def _csv_records(path: Path, kind: RowKind[Any]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, None)
            if header is None:
                return
            _check_header(header, kind=kind, where=f"{path}:1")
            needed = {name for names in kind.columns for name in names}
            others = [name for name in dict.fromkeys(header) if name not in needed]
            place = f"{path}:"
            for fields in reader:
                if len(fields) < 2 and not "".join(fields).strip():
                    continue
                number = reader.line_num
                if len(fields) != len(header):
                    told = _wrong_width(fields, header, kind=kind)
                    raise RowError(place, number, told)
                cells = dict(zip(header, fields, strict=True))
                for name in others:  # an empty cell of a column that may be absent says nothing
                    if not cells[name].strip():
                        del cells[name]
                yield Record(place, number, cells)
        except csv.Error as error:
            told = f"not CSV ({error}); is a quotation mark missing?"
            raise InputError(f"{path}:{reader.line_num}: {told}") from error


def _check_header(
    header: list[str], *, kind: RowKind[Any], where: str, whole: str = "the first line"
) -> None:
    for name, *other_names in kind.columns:
        if not {name, *other_names} & set(header):
            wanted = ", ".join(with_other_names(*names) for names in kind.columns)
            raise InputError(
                f"{where}: no column {name!r} in the header {header}; {whole} must name "
                f"the columns, among them {wanted}"
            )


def _wrong_width(fields: list[str], header: list[str], *, kind: RowKind[Any]) -> str:
    """Says that a row is not as wide as the header: a comma would cut its text in two."""
    count = len(fields)
    if count > len(header):
        remedy = f"put {kind.noun}s that contain commas in quotes"
    else:
        remedy = "separate the fields with commas, and leave none out"
    noun = "field" if count == 1 else "fields"
    return f"{count} {noun}, but the header names {len(header)}; {remedy}"


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
