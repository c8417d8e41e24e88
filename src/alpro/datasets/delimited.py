"""Rows of CSV and its relatives, as spreadsheets and people write them.

The header tells the columns and what separates them. Before it may stand blank lines, comments
(``#``) and Excel's ``sep=;``. Rows that say nothing, and empty cells beyond the last named column,
are passed over.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alpro.datasets.row_parsing import Record, Refuse, RowError, RowKind, plain_name
from alpro.errors import InputError
from alpro.user_files import read_lines

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SEPARATOR_LINE = "sep="


def csv_records(path: Path, kind: RowKind[Any], refuse: Refuse) -> Iterator[Record]:
    """Yield the rows of a file with a header.

    Args:
        path: the file.
        kind: what rows must have.
        refuse: called for each row that is not CSV, or not as wide as the header.

    Raises:
        InputError: the file cannot be read, or its header lacks a column or has one twice.
    """
    lines = read_lines(path)
    header = _find_header(lines, kind)
    if header is None:
        return
    number, line, separator = header
    names = _names_in(line, separator, kind=kind, where=f"{path}:{number}")
    # Spaces after separators are no part of the texts where the header has them, too.
    reader = csv.reader(
        lines, delimiter=separator, skipinitialspace=f"{separator} " in line, strict=True
    )
    optional = [name for name in kind.optional if name in names]
    place, width, end = f"{path}:", len(names), number
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            reason = f"not CSV ({error}); is a quotation mark missing?"
            refuse(RowError(place, end + 1, reason))
            end = number + reader.line_num
            continue
        if fields is None:
            return
        end = number + reader.line_num
        row = fields if len(fields) == width else _trimmed(fields, width)
        if row is None:
            reason = _wrong_width(len(fields), width, separator, kind=kind)
            refuse(RowError(place, end, reason))
        elif any(row):
            cells = dict(zip(names, row, strict=True))
            yield Record(place, end, _without_empty(cells, optional) if optional else cells)


def _without_empty(cells: dict[str, str], optional: Sequence[str]) -> dict[str, str]:
    """Remove empty cells of columns that may be absent: they say nothing."""
    return {key: cell for key, cell in cells.items() if key not in optional or cell.strip()}


def _trimmed(row: list[str], width: int) -> list[str] | None:
    """A row of another width without its empty cells at the end; None if that is not enough."""
    if len(row) > width and not any(map(str.strip, row[width:])):
        return row[:width]
    return None if any(map(str.strip, row)) else []


def separator_of(line: str, kind: RowKind[Any]) -> str | None:
    """Return the separator of a header's columns; None where the line names too few of them."""
    best = _best_separator(line, kind)
    return best if _fitness(line, best, kind=kind)[0] == len(kind.columns) else None


def _best_separator(line: str, kind: RowKind[Any]) -> str:
    return max(_SEPARATORS, key=lambda one: _fitness(line, one, kind=kind))


def _fitness(line: str, separator: str, *, kind: RowKind[Any]) -> tuple[int, int]:
    """Count the wanted columns that a header names, and all that it has."""
    names = _split(line, separator)
    plain = {*names, *map(plain_name, names)}
    return sum(any(name in plain for name in column) for column in kind.columns), len(names)


def _split(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:  # longer than any header
        return [line]


def _find_header(lines: Iterator[str], kind: RowKind[Any]) -> tuple[int, str, str] | None:
    """The number of the header's line, the line and its separator; None: only blank lines."""
    declared = None
    for number, line in enumerate(lines, start=1):
        text = line.strip('\r\n"')
        if text[:-1].lower() == _SEPARATOR_LINE:
            declared = text[-1]
            continue
        separator = declared or separator_of(line, kind)
        if separator is None and (not text.strip() or text.startswith("#")):
            continue
        return number, line, separator or _best_separator(line, kind)
    return None


def _names_in(line: str, separator: str, *, kind: RowKind[Any], where: str) -> list[str]:
    """The columns that a header names, those that rows are made of by their names here."""
    if line.lstrip().startswith(("{", "[{")):
        raise InputError(f"{where}: JSON, not CSV; let the name of the file end in .jsonl or .json")
    header = _split(line, separator)
    while header and not header[-1].strip():
        header.pop()
    reason = f", separated by {_SEPARATORS.get(separator, repr(separator))}"
    if len(header) < 2:
        reason = f", in which nothing is separated by {', '.join(_SEPARATORS.values())}"
    if not kind.names & set(map(plain_name, header)):
        reason += "; if the file has no header, write one"
    known = kind.known_columns(header, where=where, whole="the first line", remedy=reason)
    return [known.get(name, name) for name in header]


def _wrong_width(count: int, width: int, separator: str, *, kind: RowKind[Any]) -> str:
    """Describe a row that is not as wide as the header: a comma would cut its text in two."""
    reason = _SEPARATORS.get(separator, repr(separator))
    if count > width:
        remedy = f"put {kind.noun}s that contain {reason} in quotes"
    else:
        remedy = f"separate the fields with {reason}, and leave none out"
    noun = "field" if count == 1 else "fields"
    return f"{count} {noun}, but the header names {width}; {remedy}"
