"""Rows of JSON: one object on each line, or one list of objects, whatever the file is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from alpro.datasets.delimited import separator_of
from alpro.datasets.row_parsing import Record, Refuse, RowError, RowKind
from alpro.datasets.tables import limited_memory
from alpro.errors import InputError, shown
from alpro.user_files import (
    JsonError,
    open_text,
    parse_flat_lines,
    parse_json_line,
    read_json,
    read_lines,
)

_HEAD_CHARACTERS = 1 << 16
_LINES_AT_A_TIME = 64  # few enough to be gone before Python's garbage collector looks for them
_CONVERTER = "alpro convert-annotations lists"


def json_records(path: Path, kind: RowKind[Any], refuse: Refuse) -> Iterator[Record]:
    """Yield the rows of a file.

    Args:
        path: the file.
        kind: what rows must have.
        refuse: called for each line or entry that is no row.

    Raises:
        InputError: the file cannot be read, or is one JSON value other than a list.
    """
    with open_text(path) as file:
        head = ""
        while not head and (block := file.read(_HEAD_CHARACTERS)):
            head = block.lstrip()
    if head:
        yield from (_entries if _is_one_value(head, path) else _lines)(path, kind, refuse)


def _is_one_value(head: str, path: Path) -> bool:
    """Return whether a file holds one JSON value instead of one on each line."""
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
        values = parse_flat_lines(block)
        if values is None:
            yield from _looked_at(block, place, number, kind=kind, refuse=refuse)
        else:
            for at, value in enumerate(values, start=number):
                yield Record(place, at, value, columns)
        number += len(block)


def _looked_at(
    lines: Sequence[str], place: str, first: int, *, kind: RowKind[Any], refuse: Refuse
) -> Iterator[Record]:
    """The rows of lines of which some are blank, wrong, or not flat."""
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
    try:
        with limited_memory(path, size=path.stat().st_size):
            entries = read_json(path)
    except JsonError as error:
        wanted = f"the file must be one list of objects such as {kind.example}"
        raise InputError(f"{path}: {_not_json(error, wanted, line=error.line)}") from error
    if not isinstance(entries, list):
        keys = f" with the keys {shown(list(entries))}" if isinstance(entries, dict) else ""
        raise InputError(
            f"{path}: a JSON list is expected, not {type(entries).__name__}{keys}; list objects "
            f"such as {kind.example}, or have `{_CONVERTER}` make them"
        )
    place, columns = f"{path}: entry ", kind.columns
    for number, values in enumerate(entries, start=1):
        if isinstance(values, dict):
            yield Record(place, number, values, columns)
        else:
            found = type(values).__name__
            reason = f"a JSON object is expected, not {found}, such as {kind.example}"
            refuse(RowError(place, number, reason))
