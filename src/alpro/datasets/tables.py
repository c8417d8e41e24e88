"""Tables: CSV and Parquet files, and limits for tables that other programs have written.

A small file can claim any amount of memory: compressed columns repeat one long text, a pickle
reserves unused room. Memory is limited while a library reads a file, and so is the size of rows.
"""

from __future__ import annotations

import csv
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alpro.datasets.row_parsing import Record, Refuse, RowError, RowKind, plain_name
from alpro.errors import InputError, pluralize
from alpro.file_kinds import foreign_kind
from alpro.installation import AbsentPackageError, import_optional
from alpro.user_files import MAX_LINE_CHARACTERS, read_lines

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SEPARATOR_LINE = "sep="


def csv_records(path: Path, kind: RowKind[Any], refuse: Refuse) -> Iterator[Record]:
    """Yield the rows of a file with a header; rows of another width than it has are refused.

    Raises:
        InputError: the file cannot be read, or its header lacks a column or has one twice.
    """
    # Read the header.
    lines = read_lines(path)
    header = _find_header(lines, kind)
    if header is None:
        return
    number, line, separator = header
    names = _names_in(line, separator, kind=kind, where=f"{path}:{number}")
    # Spaces after separators are not part of the texts if the header has them, too.
    reader = csv.reader(
        lines, delimiter=separator, skipinitialspace=f"{separator} " in line, strict=True
    )
    optional = [name for name in kind.optional if name in names]
    place, width, end = f"{path}:", len(names), number
    while True:
        # Read a row, and refuse what is not CSV.
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
        # Fit it to the header; rows of empty cells are skipped.
        row = fields if len(fields) == width else _trimmed(fields, width)
        if row is None:
            reason = _wrong_width(len(fields), width, separator, kind=kind)
            refuse(RowError(place, end, reason))
        elif any(row):
            cells = dict(zip(names, row, strict=True))
            for name in optional:
                if not cells[name].strip():
                    del cells[name]
            yield Record(place, end, cells)


def _trimmed(row: list[str], width: int) -> list[str] | None:
    """Trim empty cells at the end of a row; None if it is still wider, [] if all are empty."""
    if len(row) > width and not any(map(str.strip, row[width:])):
        return row[:width]
    return None if any(map(str.strip, row)) else []


def separator_of(line: str, kind: RowKind[Any]) -> str | None:
    """Return the separator of a header's columns; None if the line names too few of them."""
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
    known = kind.known_columns(header, where=where, remedy=reason)
    return [known.get(name, name) for name in header]


def _wrong_width(count: int, width: int, separator: str, *, kind: RowKind[Any]) -> str:
    # The usual cause is a comma within an unquoted text.
    reason = _SEPARATORS.get(separator, repr(separator))
    if count > width:
        remedy = f"put {kind.noun}s that contain {reason} in quotes"
    else:
        remedy = f"separate the fields with {reason}, and leave none out"
    return f"{pluralize(count, 'field')}, but the header names {width}; {remedy}"


Columns = dict[str, list[Any]]
"""Values by the name of their column; a missing value is ``None``."""
Choice = Callable[[Sequence[str]], Mapping[str, str]]
"""All names of columns -> those to read, and what to call them."""

_FIRST_BYTES = b"PAR1"
_ROWS_AT_A_TIME = 1 << 15  # that are read of a Parquet file
# Limits for a file: a constant, and an allowance for each of its bytes.
_MEMORY_BYTES, _MEMORY_PER_BYTE = 2 << 30, 20
_MAX_CHARACTERS, _CHARACTERS_PER_BYTE = 1 << 30, 100
_MAX_ROWS = 1_000_000  # and one for each byte: no two rows are the same
_BOMB = "no annotations need so much; write the file again"


@contextmanager
def limited_memory(where: Path | str, *, size: int) -> Iterator[None]:
    """Limit this process's memory to its present size plus what reading ``size`` bytes takes.

    Raises:
        InputError: in place of a `MemoryError`.
    """
    # Add the allowance to the present size, but never raise an existing limit.
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _MEMORY_BYTES + _MEMORY_PER_BYTE * size
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    except MemoryError as error:
        raise InputError(f"{where}: takes too much memory to unpack; {_BOMB}") from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class TextChecks:
    """Checks the texts of a table, piece by piece."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._left = _MAX_CHARACTERS + _CHARACTERS_PER_BYTE * path.stat().st_size
        self._num_rows = 0

    def check(self, columns: Columns) -> None:
        """Check the next rows.

        Raises:
            InputError: all so far are more than a file of this size may hold; or a text is too
                long, or holds half a character, or a zero character.
        """
        for name, values in columns.items():
            # Check a column of texts as a whole, which is fast.
            is_plain = set(map(type, values)) == {str}
            if is_plain:
                self._spend(num_characters := sum(map(len, values)))
                if num_characters <= MAX_LINE_CHARACTERS and _is_sound("".join(values)):
                    continue
            # Check texts one by one, and name the row of the first that is wrong.
            for number, value in enumerate(values, start=self._num_rows + 1):
                for text in value if isinstance(value, list) else (value,):
                    is_text = isinstance(text, str)
                    if not is_plain:
                        self._spend(len(text) if is_text else 1)
                    if is_text and (problem := _problem_of(text)):
                        raise RowError(f"{self._path}: row ", number, f"{name!r} {problem}")
        self._num_rows += max(map(len, columns.values()), default=0)

    def _spend(self, num_characters: int) -> None:
        self._left -= num_characters
        if self._left < 0:
            raise InputError(
                f"{self._path}: unpacks to more than {_MAX_CHARACTERS:,} characters and "
                f"{_CHARACTERS_PER_BYTE} times its size; {_BOMB}"
            )


def _problem_of(text: str) -> str | None:
    if len(text) > MAX_LINE_CHARACTERS:
        return f"has more than {MAX_LINE_CHARACTERS:,} characters"
    if _is_sound(text):
        return None
    return "holds half a character (a lone surrogate), or a zero character; write the text again"


def _is_sound(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def read_parquet_tables(path: Path, choose: Choice) -> Iterator[Columns]:
    """Read chosen columns of a Parquet file, some thousand rows at a time.

    Raises:
        InputError: pyarrow is not installed, or the file is no Parquet file, or needs more memory
            or has more rows than its size allows.
    """
    try:
        parquet = import_optional("pyarrow.parquet")
        pyarrow = import_optional("pyarrow")
    except AbsentPackageError as error:
        raise InputError(
            f"{path}: reading Parquet files needs pyarrow; {error}: `pip install pyarrow`, or "
            "convert the table to CSV or JSONL"
        ) from error
    # Open the file, and check the number of rows that it declares.
    checks, size = TextChecks(path), path.stat().st_size
    try:
        with parquet.ParquetFile(path) as file:
            if (num_rows := file.metadata.num_rows) > _MAX_ROWS + size:
                raise InputError(f"{path}: {num_rows:,} rows in {size:,} bytes; {_BOMB}")
            names = choose(file.schema_arrow.names)
            # Read batch by batch; without threads, each of which reserves memory of its own.
            batches = file.iter_batches(_ROWS_AT_A_TIME, columns=list(names), use_threads=False)
            while True:
                with limited_memory(path, size=size):
                    batch = next(batches, None)
                    if batch is None:
                        return
                    columns = {new: batch.column(old).to_pylist() for old, new in names.items()}
                checks.check(columns)
                yield columns
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); write the file again") from error
    except (pyarrow.ArrowException, OSError, OverflowError) as error:
        kind = foreign_kind(path, expected=_FIRST_BYTES)
        reason = f"not a Parquet file ({error}); write the file again"
        raise InputError(f"{path}: {kind or reason}") from error
