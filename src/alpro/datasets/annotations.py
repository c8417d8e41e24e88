"""Annotation files: rows that say something about a video.

JSON with one object per row, on lines as the original's or in one list; CSV whose header names
the columns; Parquet and pickled tables. Captions, for retrieval, have the keys ``caption`` (or
``text``, ``name``) and ``clip_name`` (or ``video_id``, ``videoid``; or ``video``, the name of its
file). A caption may be a list of texts: one row for each. Further keys and columns are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from alpro.datasets.dataframes import read_pickled_table
from alpro.datasets.delimited import csv_records
from alpro.datasets.json_rows import json_records
from alpro.datasets.row_parsing import FILE_COLUMN, Record, Refuse, RowError, RowKind
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.datasets.tables import Choice, Columns, read_parquet_tables
from alpro.errors import InputError, RunError
from alpro.file_kinds import foreign_kind
from alpro.user_files import UnreadableFileError, why_unreadable

_HASH_BLOCK_BYTES = 1 << 20

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One caption of one video; the video's id carries no file extension."""

    caption: str
    video_id: str


def read_rows(path: Path, kind: RowKind[Row], row_type: type[Row]) -> SharedRows[Row]:
    """Read and pack the rows of a file.

    Raises:
        InputError: naming file and line, for anything that is no row of this kind, or if there is
            none.
        RunError: they do not fit into memory.
    """
    try:
        return pack_rows(parsed_rows(path, kind), row_type)
    except MemoryError as error:
        raise RunError(f"{path}: its rows do not fit into memory") from error


def raise_error(error: RowError) -> None:
    """Refuse a row by raising its error, so that reading ends."""
    raise error


def parsed_rows(path: Path, kind: RowKind[Row], *, refuse: Refuse = raise_error) -> Iterator[Row]:
    """Read the rows of a file one by one, in file order; blank lines are skipped.

    Args:
        path: the file.
        kind: what rows must have.
        refuse: called for each row that is wrong; where it returns, the next row is read.

    Raises:
        InputError: naming the file, if it cannot be read, or has no row.
    """
    parse, is_empty = kind.parse, True

    def noted(error: RowError) -> None:
        nonlocal is_empty
        is_empty = False
        refuse(error)

    record = None
    for record in records_of(path, kind, refuse=noted):
        try:
            yield parse(record)
        except RowError:  # only then: to look for lists first would cost a twentieth of the time
            try:
                yield from rows_of(record, kind)
            except RowError as error:
                noted(error)
    if record is None and is_empty:
        empty = "" if path.stat().st_size else ", which is empty"
        raise InputError(f"{path}: no {kind.noun} in this file{empty}; it must have at least one")


def records_of(path: Path, kind: RowKind[Any], *, refuse: Refuse = raise_error) -> Iterator[Record]:
    """Read the rows of a file as they are written there; see :func:`parsed_rows`.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    suffix = path.suffix.lower()
    reason = why_unreadable(path)
    if suffix not in kind.suffixes:
        known = ", ".join(kind.suffixes)
        problem = f"annotation files end in {known}, not in {suffix!r}"
        content = None if reason else foreign_kind(path)
        raise InputError(f"{path}: {f'{content}; {problem}' if content else problem}")
    if reason is not None:
        raise UnreadableFileError(path, reason)
    return _READERS[suffix](path, kind, refuse)


def rows_of(record: Record, kind: RowKind[Row]) -> list[Row]:
    """Make rows of a record: one, or as many as its first column lists texts.

    Raises:
        RowError: it is no such row.
    """
    name = record.name_of(*kind.columns[0])
    if not kind.may_list or not isinstance(record.values.get(name), list):
        return [kind.parse(record)]
    rows = [{**record.values, name: text} for text in record.texts(name)]
    return [kind.parse(replace(record, values=row)) for row in rows]


def read_captions(path: Path) -> SharedRows[CaptionRow]:
    """Read the captions of a ``.jsonl`` or ``.csv`` file; see :func:`read_rows`."""
    return read_rows(path, CAPTIONS, CaptionRow)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _parquet_records(path: Path, kind: RowKind[Any], _refuse: Refuse) -> Iterator[Record]:
    return _table_records(path, read_parquet_tables(path, _choice(path, kind)))


def _pickle_records(path: Path, kind: RowKind[Any], _refuse: Refuse) -> Iterator[Record]:
    return _table_records(path, [read_pickled_table(path, _choice(path, kind))])


def _choice(path: Path, kind: RowKind[Any]) -> Choice:
    return partial(kind.known_columns, where=f"{path}", whole="the table")


def _table_records(path: Path, pieces: Iterable[Columns]) -> Iterator[Record]:
    place, number = f"{path}: row ", 0
    for columns in pieces:
        names = list(columns)
        for values in zip(*columns.values(), strict=True):
            number += 1
            yield Record(place, number, dict(zip(names, values, strict=True)))


def _caption_row(record: Record) -> CaptionRow:
    caption = record.text(*CAPTIONS.columns[0])
    return CaptionRow(caption, record.identifier(*CAPTIONS.columns[1]))


CAPTIONS = RowKind(
    noun="caption",
    columns=(("caption", "text", "name"), ("clip_name", "video_id", "videoid", FILE_COLUMN)),
    example='{"caption": "a dog runs", "clip_name": "video7"}',
    parse=_caption_row,
    may_list=True,
)
_READERS = {
    ".jsonl": json_records,
    ".json": json_records,
    ".csv": csv_records,
    ".tsv": csv_records,
    ".parquet": _parquet_records,
    ".pkl": _pickle_records,
}
