"""Rows of annotations in flat memory, which worker processes share.

To look at an object of a list counts a reference, which writes to the object: forked workers get a
copy of each page that they look at, and in time of the whole list. Here rows are columns of plain
bytes in one tensor, in which nothing is counted, and a row is made each time it is asked for.
Forked processes share the memory as it is; others are sent the tensor, moved to shared memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import accumulate, chain, islice
from operator import attrgetter, eq
from typing import (
    Any,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import numpy as np
import torch
from torch import Tensor

# Few enough that rows are gone before Python's garbage collector looks for them: at 700 objects.
# With 4096 at a time, reading and packing a million took 3.5 s of a core instead of 1.9.
_ROWS_PACKED_AT_A_TIME = 64
_ALIGNMENT = 8  # bytes, of the largest numbers
_MAX_SMALL = 2**32 - 1  # ends up to it are kept in four bytes each, others in eight

Row = TypeVar("Row")
Value = Callable[[int], Any]
"""The value at a position, made anew."""
_Span = tuple[int, int, Any]
"""Where a buffer begins and ends in a tensor of bytes, and its format."""


class _Column(Protocol):
    """How values of one type are written to flat buffers, and read from them."""

    @property
    def formats(self) -> tuple[str, ...]:
        """What each of its buffers holds, in letters of the module `array`."""
        ...

    def write(self, values: Sequence[Any], buffers: Sequence[array[Any]]) -> None:
        """Append values."""
        ...

    def reader(self, buffers: Sequence[memoryview]) -> Value:
        """What reads the values."""
        ...


class _Texts:
    """Texts as UTF-8, one after the other, and where each ends; the first begins at 0."""

    formats = ("Q", "B")

    def write(self, values: Sequence[str], buffers: Sequence[array[Any]]) -> None:
        ends, data = buffers
        texts = [text.encode("utf-8", "surrogatepass") for text in values]
        _append_ends(ends, map(len, texts))
        data.frombytes(b"".join(texts))

    def reader(self, buffers: Sequence[memoryview]) -> Value:
        ends, data = buffers
        return lambda at: str(data[ends[at] : ends[at + 1]], "utf-8", "surrogatepass")


class _Numbers:
    """Whole numbers of 64 bits."""

    formats = ("q",)

    def write(self, values: Sequence[int], buffers: Sequence[array[Any]]) -> None:
        buffers[0].extend(values)

    def reader(self, buffers: Sequence[memoryview]) -> Value:
        return buffers[0].__getitem__


class _Choices:
    """Some of a few values known beforehand, up to 256, as numbers."""

    formats = ("B",)

    def __init__(self, choices: Sequence[Any]) -> None:
        self._choices = choices
        self._numbers = {choice: number for number, choice in enumerate(choices)}

    def write(self, values: Sequence[Any], buffers: Sequence[array[Any]]) -> None:
        buffers[0].extend(map(self._numbers.__getitem__, values))

    def reader(self, buffers: Sequence[memoryview]) -> Value:
        numbers, choices = buffers[0], self._choices
        return lambda at: choices[numbers[at]]


class _Several:
    """Tuples of any length: their values one after the other, and where each tuple ends."""

    def __init__(self, column: _Column) -> None:
        self._column = column
        self.formats = ("Q", *column.formats)

    def write(self, values: Sequence[tuple[Any, ...]], buffers: Sequence[array[Any]]) -> None:
        ends, *of_values = buffers
        _append_ends(ends, map(len, values))
        self._column.write(list(chain.from_iterable(values)), of_values)

    def reader(self, buffers: Sequence[memoryview]) -> Value:
        ends, *of_values = buffers
        value = self._column.reader(of_values)
        return lambda at: tuple([value(one) for one in range(ends[at], ends[at + 1])])


class _Records:
    """Dataclasses, field by field."""

    def __init__(self, kind: type[Any]) -> None:
        hints = get_type_hints(kind)
        self._kind = kind
        self._columns = {field.name: _column_for(hints[field.name]) for field in fields(kind)}
        self.formats = tuple(one for column in self._columns.values() for one in column.formats)

    def write(self, values: Sequence[Any], buffers: Sequence[array[Any]]) -> None:
        rest = iter(buffers)
        for name, column in self._columns.items():
            own = list(islice(rest, len(column.formats)))
            column.write(list(map(attrgetter(name), values)), own)

    def reader(self, buffers: Sequence[memoryview]) -> Value:
        kind, values = self._kind, tuple(self.readers(buffers).values())
        if len(values) == 2:  # as most rows; half the time of a loop
            first, second = values
            return lambda at: kind(first(at), second(at))
        return lambda at: kind(*[value(at) for value in values])

    def readers(self, buffers: Sequence[memoryview]) -> dict[str, Value]:
        """What reads each field."""
        rest = iter(buffers)
        return {
            name: column.reader(list(islice(rest, len(column.formats))))
            for name, column in self._columns.items()
        }


def _column_for(kind: Any) -> _Column:
    """The column for values of a type."""
    arguments = get_args(kind)
    if kind is str:
        return _Texts()
    if kind is int:
        return _Numbers()
    if get_origin(kind) is Literal:
        return _Choices(arguments)
    if get_origin(kind) is tuple and arguments[1:] == (...,):
        return _Several(_column_for(arguments[0]))
    if is_dataclass(kind) and isinstance(kind, type):
        return _Records(kind)
    raise TypeError(f"rows of {kind} cannot be packed")


def _append_ends(ends: array[int], lengths: Iterable[int]) -> None:
    """Append where values of these lengths end that follow the ones before."""
    ends.extend(accumulate(lengths, initial=ends.pop() if ends else 0))


class _Table:
    """All values of some rows, in one tensor."""

    def __init__(self, kind: Any, data: Tensor, spans: Sequence[_Span]) -> None:
        self._kind = kind
        self._data = data
        self._spans = spans
        self._row: Value | None = None

    @property
    def row(self) -> Value:
        """What makes a row."""
        row = self._row
        if row is None:
            row = self._row = _column_for(self._kind).reader(self._buffers())
        return row

    @property
    def num_bytes(self) -> int:
        """The tensor's size."""
        return self._data.nbytes

    def value(self, name: str) -> Value:
        """What makes the value of a field."""
        column = _Records(self._kind)
        return column.readers(self._buffers())[name]

    def _buffers(self) -> list[memoryview[Any]]:
        data = self._data.numpy().data
        return [data[start:end].cast(letter) for start, end, letter in self._spans]

    def __reduce__(self) -> tuple[Any, ...]:
        data = self._data = _in_shared_memory(self._data)
        self._row = None  # so that the first memory is not kept beside it
        return _Table, (self._kind, data, self._spans)


def _in_shared_memory(tensor: Tensor) -> Tensor:
    """The tensor, or a copy, whose bytes stay where they are when it is sent to a process.

    PyTorch would move a tensor's own bytes, under the hands of a thread that reads them.
    """
    return tensor if tensor.is_shared() else torch.empty_like(tensor).share_memory_().copy_(tensor)


def _table_of(kind: Any, buffers: list[array[Any]]) -> _Table:
    """Moves buffers into one tensor; one after the other, to need less memory meanwhile."""
    spans: list[_Span] = []
    end = 0
    for buffer in buffers:
        is_small = buffer.typecode == "Q" and (not buffer or buffer[-1] <= _MAX_SMALL)
        letter = "I" if is_small else buffer.typecode
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        end = start + len(buffer) * np.dtype(letter).itemsize
        spans.append((start, end, letter))
    data = torch.empty(end, dtype=torch.uint8)
    for start, end, letter in spans:
        data.numpy()[start:end].view(letter)[:] = np.asarray(buffers.pop(0))
    return _Table(kind, data, spans)


class SharedRows(Sequence[Row], Generic[Row]):
    """Rows of one type that processes share; equal to any sequence of equal rows.

    They are made by :func:`pack_rows`.
    """

    def __init__(self, table: _Table, positions: Tensor) -> None:
        """Some rows of a table.

        Args:
            table: the rows.
            positions: (N,) int64, where they stand in it.
        """
        self._table = table
        self._positions = positions
        self._places: memoryview | None = None

    def take(self, positions: Sequence[int] | np.ndarray) -> SharedRows[Row]:
        """The rows at some positions, in that order; they share this one's memory."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return SharedRows(self._table, self._positions[chosen])

    @property
    def num_bytes(self) -> int:
        """Bytes of the memory that holds the rows."""
        return self._table.num_bytes + self._positions.nbytes

    def column(self, name: str) -> list[Any]:
        """The values of one field of all rows: quicker than making the rows."""
        return list(map(self._table.value(name), self._positions.tolist()))

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> SharedRows[Row]: ...
    def __getitem__(self, key: int | slice) -> Row | SharedRows[Row]:
        if isinstance(key, slice):
            return self.take(range(len(self))[key])
        places = self._places
        if places is None:
            places = self._places = self._positions.numpy().data
        return self._table.row(places[key])

    def __iter__(self) -> Iterator[Row]:
        return map(self.__getitem__, range(len(self)))

    def __len__(self) -> int:
        return len(self._positions)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # as of lists

    def __repr__(self) -> str:
        return f"SharedRows({list(self)})"

    def __copy__(self) -> SharedRows[Row]:
        return self  # nothing can be changed

    def __reduce__(self) -> tuple[Any, ...]:
        positions = self._positions = _in_shared_memory(self._positions)
        self._places = None
        return SharedRows, (self._table, positions)


def pack_rows(rows: Iterable[Row], kind: type[Row]) -> SharedRows[Row]:
    """Pack rows as they come.

    Args:
        rows: instances of ``kind``.
        kind: text, or a dataclass whose fields are texts, whole numbers of 64 bits, literals,
            tuples ``tuple[X, ...]`` of such, or such dataclasses again.
    """
    column = _column_for(kind)
    buffers: list[array[Any]] = [array(letter) for letter in column.formats]
    left, num_rows = iter(rows), 0
    while some := list(islice(left, _ROWS_PACKED_AT_A_TIME)):
        column.write(some, buffers)
        num_rows += len(some)
    return SharedRows(_table_of(kind, buffers), torch.arange(num_rows))
