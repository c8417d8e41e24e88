"""Reading annotation files whose rows are partly broken: the good rows, and what the others lack.

The project's readers stop at the first row that is wrong. Here the file is given to them in blocks,
without the rows that they have refused.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from src.datasets.records import RowError
from src.errors import InputError

T = TypeVar("T")

BLOCK_ROWS = 256  # read again for each bad row among them
MAX_BAD_ROWS = 2000  # of a file: after these no further row is looked at

_WELL_FORMED = {
    **{"caption": "x", "text": "x", "name": "x", "question": "x", "answer": "x"},
    **{"clip_name": "x", "video_id": "x", "videoid": "x", "image": "x"},
}
"""A row of any kind; readers refuse a file without a single good one."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that a reader has refused."""

    place: str
    """``train.jsonl:7``."""
    reason: str
    is_empty: bool
    """Its text says nothing, which is all that is wrong."""


@dataclass(frozen=True, slots=True)
class RowsLeft(Generic[T]):
    """What a file holds beside its bad rows."""

    good: list[T] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    num_unseen: int = 0
    """Rows after the `MAX_BAD_ROWS`-th bad one."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A row as it is written."""

    number: int
    """Its line, or its place in a list."""
    content: Any


def read_rows_left(path: Path, read: Callable[[Path], list[T]]) -> RowsLeft[T]:
    """Read all that can be read of a file.

    Args:
        path: the file.
        read: reads a whole file, or raises InputError for the first row that is wrong.

    Raises:
        InputError: no row of the file can be read, or none by itself, as of tables.
    """
    try:
        return RowsLeft(read(path))
    except RowError:
        form = _FORMS.get(path.suffix.lower())
        if form is None:
            raise
    try:
        return _read_in_blocks(path, form, read)
    except UnicodeDecodeError as error:  # after the row that was refused first
        raise InputError(f"{path}: not UTF-8 text ({error}); convert the file to UTF-8") from error


def _read_in_blocks(
    path: Path, form: type[_Lines], read: Callable[[Path], list[T]]
) -> RowsLeft[T]:
    file = form(path)
    records = iter(file.records())
    left: RowsLeft[T] = RowsLeft()
    with tempfile.TemporaryDirectory() as folder:
        block_file = Path(folder) / f"block{path.suffix.lower()}"
        while block := list(islice(records, BLOCK_ROWS)):
            good, bad = _read_block(file, block, block_file, read)
            left.good.extend(good)
            left.bad.extend(bad)
            if len(left.bad) >= MAX_BAD_ROWS:
                return RowsLeft(left.good, left.bad, sum(1 for _ in records))
    return left


def _read_block(
    file: _Lines, block: list[_Record], block_file: Path, read: Callable[[Path], list[T]]
) -> tuple[list[T], list[BadRow]]:
    """Read a block again and again, until it has no bad row left."""
    bad: list[BadRow] = []
    while True:
        block_file.write_text(file.text_of(block), encoding="utf-8")
        try:
            return read(block_file)[:-1], bad
        except RowError as error:
            position = file.position(block, error.number)
            if position is None:
                raise
            record = block.pop(position)
            bad.append(BadRow(file.place(record), error.told, error.is_empty))


class _Lines:
    """JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> Iterator[_Record]:
        """All rows of the file."""
        with self.path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _Record(number, line.rstrip("\n"))

    def text_of(self, block: list[_Record]) -> str:
        """A file of some rows and a good one."""
        return "\n".join([*(record.content for record in block), json.dumps(_WELL_FORMED)])

    def position(self, block: list[_Record], number: int) -> int | None:
        """The place in the block of the row that ends on a line of its file; None: no such row."""
        return number - 1 if 1 <= number <= len(block) else None

    def place(self, record: _Record) -> str:
        """Where a row is, for the user."""
        return f"{self.path}:{record.number}"


class _Csv(_Lines):
    """CSV with a header; a row may go over several lines."""

    def records(self) -> Iterator[_Record]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            try:
                self.header = next(reader, [])
                for fields in reader:
                    if len(fields) > 1 or "".join(fields).strip():
                        yield _Record(reader.line_num, fields)
            except csv.Error as error:
                place = f"{self.path}:{reader.line_num}"
                told = f"not CSV ({error}); is a quotation mark missing?"
                raise InputError(f"{place}: {told}") from error

    def text_of(self, block: list[_Record]) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        # Line breaks within a field would be counted; what stands there is for messages only.
        writer.writerows([_one_line(field) for field in record.content] for record in block)
        writer.writerow(["1"] * len(self.header))
        return text.getvalue()

    def position(self, block: list[_Record], number: int) -> int | None:
        return super().position(block, number - 1)


class _List(_Lines):
    """One JSON list."""

    def records(self) -> Iterator[_Record]:
        entries = json.loads(self.path.read_text(encoding="utf-8-sig"))
        yield from (_Record(number, entry) for number, entry in enumerate(entries, start=1))

    def text_of(self, block: list[_Record]) -> str:
        return json.dumps([*(record.content for record in block), _WELL_FORMED])

    def place(self, record: _Record) -> str:
        return f"{self.path}: entry {record.number}"


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()) if "\n" in text or "\r" in text else text


_FORMS: dict[str, type[_Lines]] = {".jsonl": _Lines, ".csv": _Csv, ".json": _List}
