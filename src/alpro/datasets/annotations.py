"""Annotation files: rows that describe a video each.

JSON with one object per row, on lines as the original's or in one list; CSV whose header names
the columns; Parquet and pickled tables. Captions, for retrieval, have the keys ``caption`` (or
``text``, ``name``) and ``clip_name`` (or ``clip_id``, ``video_id``, ``videoid``; or ``video``, the
name of its file), and perhaps ``num_frame``, the frames in the video's folder. A caption may be a
list of texts, see `read_captions`. Further keys and columns are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from alpro.datasets.dataframes import read_pickled_table
from alpro.datasets.row_parsing import FILE_COLUMN, Record, Refuse, RowError, RowKind
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.datasets.tables import (
    csv_records,
    limited_memory,
    read_parquet_tables,
    separator_of,
)
from alpro.errors import InputError, RunError, listed, shortened
from alpro.file_kinds import foreign_kind
from alpro.user_files import (
    JsonError,
    UnreadableFileError,
    open_text,
    parse_flat_lines,
    parse_json_line,
    read_json,
    read_lines,
    why_unreadable,
)

_HEAD_CHARACTERS = 1 << 16
_LINES_AT_A_TIME = 64  # few enough to be gone before Python's garbage collector looks for them
_CONVERTER = "alpro convert-annotations lists"


def json_records(path: Path, kind: RowKind[Any], refuse: Refuse) -> Iterator[Record]:
    """Yield the rows of a file; lines or entries that are no objects are refused.

    Raises:
        InputError: the file cannot be read, or is one JSON value other than a list.
    """
    # The first characters decide between one list and one object per line.
    with open_text(path) as file:
        head = ""
        while not head and (block := file.read(_HEAD_CHARACTERS)):
            head = block.lstrip()
    if head:
        yield from (_entries if _is_one_value(head, path) else _lines)(path, kind, refuse)


def _is_one_value(head: str, path: Path) -> bool:
    """Return whether a file holds one JSON value, not one on each line."""
    is_json = path.suffix.lower() == ".json"
    if head.startswith("["):
        return is_json or head[1:].lstrip()[:1] in ("{", "]", "")
    first, _, rest = head.partition("\n")
    try:
        is_line = isinstance(parse_json_line(first), dict) and bool(rest.strip())
    except JsonError:
        is_line = False
    return is_json and not is_line


def _lines(path: Path, kind: RowKind[Any], refuse: Refuse) -> Iterator[Record]:
    place, columns, number = f"{path}:", kind.columns, 1
    lines = read_lines(path)
    while block := list(islice(lines, _LINES_AT_A_TIME)):
        # Parse a block of flat objects at once, which is fast, anything else line by line.
        values = parse_flat_lines(block)
        if values is None:
            yield from _parse_lines(block, place, number, kind=kind, refuse=refuse)
        else:
            for at, value in enumerate(values, start=number):
                yield Record(place, at, value, columns)
        number += len(block)


def _parse_lines(
    lines: Sequence[str], place: str, first: int, *, kind: RowKind[Any], refuse: Refuse
) -> Iterator[Record]:
    for number, line in enumerate(lines, start=first):
        if line.isspace():
            continue
        try:
            values = parse_json_line(line)
        except JsonError as error:
            reason = _not_json(error, f"each line must be one object such as {kind.example}")
            hint = "; if this is CSV, let its name end in .csv" if separator_of(line, kind) else ""
            refuse(RowError(place, number, f"{reason}{hint}"))
            continue
        if isinstance(values, dict):
            yield Record(place, number, values, kind.columns)
        else:
            reason = f"a JSON object is expected, not {type(values).__name__}; write one object"
            refuse(RowError(place, number, f"{reason} per line, such as {kind.example}"))


def _not_json(error: JsonError, wanted: str, *, line: int | None = None) -> str:
    if not error.is_syntax:
        return error.reason
    where = f"column {error.column}" if line is None else f"line {line}, column {error.column}"
    return f"not JSON ({error.reason} at {where}); {wanted}"


def _entries(path: Path, kind: RowKind[Any], refuse: Refuse) -> Iterator[Record]:
    # Read the whole list.
    try:
        with limited_memory(path, size=path.stat().st_size):
            entries = read_json(path)
    except JsonError as error:
        wanted = f"the file must be one list of objects such as {kind.example}"
        raise InputError(f"{path}: {_not_json(error, wanted, line=error.line)}") from error
    if not isinstance(entries, list):
        names = list(map(shortened, entries)) if isinstance(entries, dict) else []
        keys = f" with the keys {listed(names)}" if names else ""
        raise InputError(
            f"{path}: a JSON list is expected, not {type(entries).__name__}{keys}; list objects "
            f"such as {kind.example}, or make the file with `{_CONVERTER}`"
        )
    # Each of its entries is a row.
    place, columns = f"{path}: entry ", kind.columns
    for number, values in enumerate(entries, start=1):
        if isinstance(values, dict):
            yield Record(place, number, values, columns)
        else:
            reason = f"a JSON object is expected, not {type(values).__name__}"
            refuse(RowError(place, number, f"{reason}, such as {kind.example}"))


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One caption of one video; the video's id carries no file extension."""

    caption: str
    video_id: str
    num_frames: int = 0  # of a folder of frames; 0: all that it holds
    other_captions: tuple[str, ...] = ()  # training draws from them and `caption`


def read_rows(path: Path, kind: RowKind[Row], row_type: type[Row]) -> SharedRows[Row]:
    """Read and pack the rows of a file.

    Raises:
        InputError: naming file and line of an invalid row; or there is no row.
        RunError: they do not fit into memory.
    """
    try:
        return pack_rows(parsed_rows(path, kind), row_type)
    except MemoryError as error:
        raise RunError(f"{path}: its rows do not fit into memory") from error


def raise_error(error: RowError) -> None:
    """Raise the error of an invalid row, so that reading ends."""
    raise error


def parsed_rows(path: Path, kind: RowKind[Row], *, refuse: Refuse = raise_error) -> Iterator[Row]:
    """Read the rows of a file one by one, in file order; blank lines are skipped.

    Raises:
        InputError: naming the file, if it cannot be read, or has no row.
    """
    # A file whose rows are all refused is not empty.
    parse, is_empty = kind.parse, True

    def noted(error: RowError) -> None:
        nonlocal is_empty
        is_empty = False
        refuse(error)

    # Parse each record; only where that fails, since a check of each row costs 5 % of the time, it
    # may hold a list of texts.
    record = None
    for record in records_of(path, kind, refuse=noted):
        try:
            yield parse(record)
        except RowError:
            try:
                yield from rows_of(record, kind)
            except RowError as error:
                noted(error)
    if record is None and is_empty:
        empty = "" if path.stat().st_size else ", which is empty"
        raise InputError(f"{path}: no {kind.noun} in this file{empty}")


def records_of(path: Path, kind: RowKind[Any], *, refuse: Refuse = raise_error) -> Iterator[Record]:
    """Read the rows of a file without parsing them; see :func:`parsed_rows`.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """
    suffix = path.suffix.lower()
    reason = why_unreadable(path)
    if suffix not in kind.suffixes:
        problem = f"annotation files end in {', '.join(kind.suffixes)}, not in {suffix!r}"
        content = None if reason else foreign_kind(path)
        raise InputError(f"{path}: {f'{content}; {problem}' if content else problem}")
    if reason is not None:
        raise UnreadableFileError(path, reason)
    return _READERS[suffix](path, kind, refuse)


def rows_of(record: Record, kind: RowKind[Row]) -> list[Row]:
    """Parse a record: one row, or one for each text that its first column lists.

    Raises:
        RowError: it is no such row.
    """
    name = record.name_of(*kind.columns[0])
    if not kind.may_list or not isinstance(record.values.get(name), list):
        return [kind.parse(record)]
    rows = [{**record.values, name: text} for text in record.texts(name)]
    return [kind.parse(replace(record, values=row)) for row in rows]


def read_captions(path: Path, *, text_lists: str = "pairs") -> SharedRows[CaptionRow]:
    """Read the captions of a ``.jsonl`` or ``.csv`` file; see :func:`read_rows`.

    Args:
        path: the file.
        text_lists: lists of texts: ``pairs``: one row for each text. ``draw``: one row, of which
            training draws a text each time. ``paragraph``: one text, joined by spaces.
    """
    return read_rows(path, _CAPTION_KINDS[text_lists], CaptionRow)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table_records(path: Path, kind: RowKind[Any], _refuse: Refuse) -> Iterator[Record]:
    choose = partial(kind.known_columns, where=f"{path}", whole="the table")
    is_pickle = path.suffix.lower() == ".pkl"
    pieces = [read_pickled_table(path, choose)] if is_pickle else read_parquet_tables(path, choose)
    place, number = f"{path}: row ", 0
    for columns in pieces:
        names = list(columns)
        for values in zip(*columns.values(), strict=True):
            number += 1
            yield Record(place, number, dict(zip(names, values, strict=True)))


_TEXT_NAMES = ("caption", "text", "name")
_ID_NAMES = ("clip_name", "clip_id", "video_id", "videoid", FILE_COLUMN)


def _caption_row(record: Record) -> CaptionRow:
    text, video_id = record.text(*_TEXT_NAMES), record.identifier(*_ID_NAMES)
    return CaptionRow(text, video_id, record.count("num_frame"))


def _row_of_texts(record: Record, *, joined: bool) -> CaptionRow:
    texts, video_id = record.texts(*_TEXT_NAMES), record.identifier(*_ID_NAMES)
    first, *others = [" ".join(texts)] if joined else texts
    return CaptionRow(first, video_id, record.count("num_frame"), tuple(others))


CAPTIONS = RowKind(
    noun="caption",
    columns=(_TEXT_NAMES, _ID_NAMES),
    example='{"caption": "a dog runs", "clip_name": "video7"}',
    parse=_caption_row,
    optional=("num_frame",),
    may_list=True,
)
_CAPTION_KINDS = {
    "pairs": CAPTIONS,
    "draw": replace(CAPTIONS, parse=partial(_row_of_texts, joined=False), may_list=False),
    "paragraph": replace(CAPTIONS, parse=partial(_row_of_texts, joined=True), may_list=False),
}
_READERS = {
    ".jsonl": json_records,
    ".json": json_records,
    ".csv": csv_records,
    ".tsv": csv_records,
    ".parquet": _table_records,
    ".pkl": _table_records,
}
