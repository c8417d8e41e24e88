"""Rows of annotations serialized in flat memory, which worker processes share.

Reading an object of a list changes its reference count: forked workers copy each page that they
read, and in time the whole list. Here rows are bytes in one tensor, and decoded on each access.
Forked processes share the memory as it is; others receive the tensor in shared memory.
"""

from __future__ import annotations

import marshal
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cached_property
from operator import attrgetter, eq
from typing import (
    Any,
    Generic,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import numpy as np
import torch
from torch import Tensor

_MAX_SMALL = 2**31 - 1  # ends up to it take four bytes each, others eight

Row = TypeVar("Row")


class _Codec(NamedTuple):
    """Conversion of the values of a type into what `marshal` can write, and back."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def _unchanged(value: Any) -> Any:
    return value


_PLAIN = _Codec(_unchanged, _unchanged)


def _codec_for(kind: Any) -> _Codec:
    arguments = get_args(kind)
    if kind in (str, int) or get_origin(kind) is Literal:
        return _PLAIN
    if get_origin(kind) is tuple and arguments[1:] == (...,):
        encode, decode = _codec_for(arguments[0])
        if encode is _unchanged:
            return _PLAIN
        return _Codec(
            lambda values: tuple(map(encode, values)), lambda values: tuple(map(decode, values))
        )
    if is_dataclass(kind) and isinstance(kind, type):
        return _codec_of_fields(kind)
    raise TypeError(f"rows of {kind} cannot be packed")


def _codec_of_fields(kind: type[Any]) -> _Codec:
    codecs = _field_codecs(kind)
    values_of = attrgetter(*codecs)  # at least two, so that it gives a tuple
    if all(codec is _PLAIN for codec in codecs.values()):
        return _Codec(values_of, lambda values: kind(*values))
    encoders, decoders = zip(*codecs.values(), strict=True)

    def encode(row: Any) -> Any:
        return tuple([to(value) for to, value in zip(encoders, values_of(row), strict=True)])

    def decode(values: Any) -> Any:
        return kind(*[to(value) for to, value in zip(decoders, values, strict=True)])

    return _Codec(encode, decode)


def _field_codecs(kind: type[Any]) -> dict[str, _Codec]:
    hints = get_type_hints(kind)
    return {field.name: _codec_for(hints[field.name]) for field in fields(kind)}


class _Table:
    """Encoded rows, one after the other.

    Shapes: ``R`` rows.
    """

    def __init__(self, kind: Any, data: Tensor, ends: Tensor) -> None:
        self.kind = kind
        self.data = data
        self.ends = ends  # (R + 1,): where each row ends, after a 0

    @cached_property
    def row(self) -> Callable[[int], Any]:
        """The function that decodes a row."""
        return self._reader(_codec_for(self.kind).decode)

    def value(self, name: str) -> Callable[[int], Any]:
        """The function that decodes one field of a row."""
        codecs = _field_codecs(self.kind)
        place, decode = list(codecs).index(name), codecs[name].decode
        return self._reader(lambda values: decode(values[place]))

    def _reader(self, decode: Callable[[Any], Any]) -> Callable[[int], Any]:
        data, ends, loads = self.data.numpy().data, self.ends.numpy().data, marshal.loads
        return lambda at: decode(loads(data[ends[at] : ends[at + 1]]))

    def __reduce__(self) -> tuple[Any, ...]:
        data = self.data = _in_shared_memory(self.data)
        ends = self.ends = _in_shared_memory(self.ends)
        self.__dict__.pop("row", None)  # which would keep the first memory
        return _Table, (self.kind, data, ends)


def _in_shared_memory(tensor: Tensor) -> Tensor:
    # A copy, since PyTorch would move the tensor's own memory while a thread reads it.
    return tensor if tensor.is_shared() else torch.empty_like(tensor).share_memory_().copy_(tensor)


class SharedRows(Sequence[Row], Generic[Row]):
    """Rows of one type that processes share, see :func:`pack_rows`; equal to any equal sequence."""

    def __init__(self, table: _Table, positions: Tensor) -> None:
        self._table = table
        self._positions = positions  # (N,) int64, in the table

    def take(self, positions: Sequence[int] | np.ndarray) -> SharedRows[Row]:
        """The rows at some positions, in that order; they share this one's memory."""
        chosen = torch.as_tensor(positions, dtype=torch.int64)
        return SharedRows(self._table, self._positions[chosen])

    @property
    def num_bytes(self) -> int:
        """Bytes of the memory that holds the rows."""
        return self._table.data.nbytes + self._table.ends.nbytes + self._positions.nbytes

    def has_column(self, name: str) -> bool:
        """Whether the rows have a field of this name."""
        kind = self._table.kind
        return is_dataclass(kind) and name in {field.name for field in fields(kind)}

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
        return self._table.row(self._places[key])

    @cached_property
    def _places(self) -> memoryview:
        return self._positions.numpy().data

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
        self.__dict__.pop("_places", None)
        return SharedRows, (self._table, positions)


def pack_rows(rows: Iterable[Row], kind: type[Row]) -> SharedRows[Row]:
    """Pack rows, instances of ``kind``, as they come.

    The kind is text, or a dataclass of two or more fields that are texts, whole numbers, literals,
    tuples ``tuple[X, ...]`` of such, or such dataclasses again.
    """
    # Serialize rows one after the other.
    encode, dumps = _codec_for(kind).encode, marshal.dumps
    data, ends = bytearray(), array("q", [0])
    for row in rows:
        data += dumps(encode(row))
        ends.append(len(data))
    # Wrap the memory in tensors without another copy of the data.
    small = np.int32 if len(data) <= _MAX_SMALL else np.int64
    table = _Table(
        kind,
        torch.from_numpy(np.frombuffer(data, np.uint8)),
        torch.from_numpy(np.asarray(ends).astype(small)),
    )
    return SharedRows(table, torch.arange(len(ends) - 1))
