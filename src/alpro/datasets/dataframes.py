"""Pickled pandas DataFrames, read without pandas.

A pickle is a program: it calls named functions. Here every name yields an inert record of its call,
from which the columns are then read: nothing of a pickle is run, whatever pandas wrote it (1.0 to
3.1 have been read). The libraries do not get it: a damaged state makes NumPy, and so pandas, end
the process. Memory is limited meanwhile.

Shapes: ``C`` columns of a block, ``R`` rows.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alpro.datasets.row_parsing import RowError
from alpro.datasets.tables import Choice, Columns, TextChecks, limited_memory
from alpro.errors import InputError, shortened, shown
from alpro.file_kinds import foreign_kind

_CONVERT = "convert the table to CSV, JSONL or Parquet"
_FIRST_BYTE = b"\x80"  # of pickles since protocol 2
_LIBRARIES = ("numpy", "pandas", "pyarrow")
_OTHER_NAMES = ("functools.partial", "_codecs.encode", "builtins.slice", "builtins.bytearray")
_MAX_COLUMNS = 10_000  # tables of annotations have a few
_MAX_MESSAGE = 200  # characters that a message takes over of a file
_PLAIN_KINDS = "biuf"  # numpy's letters for truth values and numbers
# What unpickling and reading records of a damaged file can meet.
_DAMAGES = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError),
    *(AttributeError, OverflowError, RecursionError),
)


class _Recorded:
    """Record of a call in a pickle, and of the state set on its result; does nothing."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_named: Any) -> _Recorded:
        recorded = super().__new__(cls)
        recorded.arguments, recorded.state = arguments, None
        return recorded

    def __call__(self, *arguments: Any) -> _Recorded:
        """Record the call of a partial, which pandas 1.3 makes blocks by."""
        return type(self)(*arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _RecordingUnpickler(pickle.Unpickler):
    """Makes records only, and refuses names that no DataFrame needs."""

    def find_class(self, module: str, name: str) -> type[_Recorded]:
        asked = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if module.partition(".")[0] not in _LIBRARIES and asked not in _OTHER_NAMES:
            raise InputError(
                f"the pickle asks for {shortened(asked, most=_MAX_MESSAGE)}, which a DataFrame of "
                f"plain columns has no need of and which may run anything; {_CONVERT}"
            )
        # A class for each, so that what a pickle sets on it does not outlive the pickle.
        return type(name, (_Recorded,), {})


def read_pickled_table(path: Path, choose: Choice | None = None) -> Columns:
    """Read columns of plain numbers and texts of a pickled pandas DataFrame; all without a choice.

    Raises:
        InputError: for anything else than such a pickle, without having run any of it.
    """
    # Record the pickle's calls, read the columns from the records, and check their texts.
    try:
        with path.open("rb") as file, limited_memory(path, size=path.stat().st_size):
            frame = _RecordingUnpickler(file).load()
            if _name(frame) != "DataFrame":
                raise InputError(f"a DataFrame is expected, not {_name(frame)}; {_CONVERT}")
            columns = _read_frame(frame, choose)
        TextChecks(path).check(columns)
        return columns
    # Name the file in all errors; damage shows as an arbitrary exception.
    except RowError:
        raise
    except InputError as error:
        where = f"{path}: "
        raise InputError(f"{where}{str(error).removeprefix(where)}") from error
    except _DAMAGES as error:
        reason = foreign_kind(path, expected=_FIRST_BYTE) or (
            f"not a pickled DataFrame of plain columns ({_name(error)}: "
            f"{shortened(str(error), most=_MAX_MESSAGE)}); write the file again, or {_CONVERT}"
        )
        raise InputError(f"{path}: {reason}") from error


def _name(value: Any) -> str:
    return type(value).__name__


def _read_frame(frame: _Recorded, choose: Choice | None) -> Columns:
    # Find the blocks and the axis of column names in the records of any pandas version.
    manager = frame.state.get("_mgr", frame.state.get("_data"))  # _data before pandas 1.1
    if manager.arguments:
        blocks, (axis, _rows) = manager.arguments
        pairs = [block.arguments[:2] for block in blocks]
    else:  # before pandas 1.3
        (*_, state) = manager.state
        axis, _rows = state["0.14.1"]["axes"]
        pairs = [(block["values"], block["mgr_locs"]) for block in state["0.14.1"]["blocks"]]
    # Choose columns by their labels.
    labels = _read_labels(axis)
    if len(labels) > _MAX_COLUMNS:
        raise InputError(f"{len(labels)} columns, more than {_MAX_COLUMNS}; {_CONVERT}")
    names = [str(label) for label in labels]
    wanted: Mapping[str, str | None] = dict.fromkeys(names) if choose is None else choose(names)
    # Read the wanted rows of each block, which are columns of the table.
    read: dict[int, list[Any]] = {}
    for values, places in pairs:
        is_range = _name(places) == "slice"
        positions = range(*places.arguments) if is_range else _read_array(places).ravel().tolist()
        if len(positions) > len(names):
            raise InputError(f"a block of more columns than have names ({len(names)}); {_CONVERT}")
        for row, position in enumerate(positions):
            if names[position] in wanted:
                read[position] = _read_column(values, row, name=names[position])
    # Put them in the table's order; each must be there once, with as many rows as the others.
    columns = {wanted[names[place]] or names[place]: read[place] for place in sorted(read)}
    num_wanted = sum(name in wanted for name in names)
    if len(columns) < num_wanted or len({len(values) for values in columns.values()}) > 1:
        raise InputError(f"columns of one name or of several lengths ({shown(names)}); {_CONVERT}")
    return columns


def _read_labels(index: _Recorded) -> Sequence[Any]:
    _kind, state = index.arguments
    if "data" in state:
        return _read_column(state["data"], 0, name="of names")
    return range(state["start"], state["stop"], state["step"])


def _read_column(values: Any, row: int, *, name: str) -> list[Any]:
    """Read one row of a block, a column of the table; missing values are None."""
    kind = _name(values)
    if kind.startswith("ArrowString"):
        return _read_arrow(values.state.get("_pa_array", values.state.get("_data")))
    if kind == "IntegerArray":
        numbers, missing = (_read_array(values.state[part]) for part in ("_data", "_mask"))
        pairs = zip(numbers.tolist(), missing.tolist(), strict=True)
        return [None if gone else number for number, gone in pairs]
    if kind == "__pyx_unpickle_NDArrayBacked":
        values = next(part for part in values.state if _name(part) in _ARRAYS)
    elif kind.startswith("StringArray"):
        values = values.state["_ndarray"]
    elif kind not in _ARRAYS:
        raise InputError(f"column {shown(name)} is of no plain kind ({kind}); {_CONVERT}")
    array = _read_array(values)
    return [None if _is_missing(value) else value for value in np.atleast_2d(array)[row].tolist()]


def _is_missing(value: Any) -> bool:
    if isinstance(value, type):
        return value.__name__ == "NA"
    return isinstance(value, float) and value != value


_ARRAYS = ("_reconstruct", "_frombuffer")


def _read_array(array: _Recorded) -> np.ndarray:
    """Decode a numpy array, (R,) or (C, R)."""
    if _name(array) == "_frombuffer":
        data, kind, shape, order, *_ = array.arguments
    else:
        _version, shape, kind, is_fortran, data = array.state
        order = "F" if is_fortran else "C"
    if isinstance(data, list):  # objects, always in C's order
        return np.fromiter(data, dtype=object, count=len(data)).reshape(shape)
    (letters, *_), byte_order = kind.arguments, kind.state[1]
    if letters[:1] not in _PLAIN_KINDS or not letters[1:].isdigit():
        raise InputError(f"columns of numpy's kind {shown(letters)} cannot be read; {_CONVERT}")
    plain = np.dtype(letters).newbyteorder(byte_order)
    return np.frombuffer(_read_bytes(data), dtype=plain).reshape(shape, order=order)


def _read_arrow(array: _Recorded) -> list[str | None]:
    if _name(array) == "chunked_array":
        return [text for chunk in array.arguments[0] for text in _read_arrow(chunk)]
    ((kind, length, _missing, offset, buffers, *_),) = array.arguments
    letters = {"large_string": "<i8", "string": "<i4"}.get(kind.arguments[0])
    if letters is None:
        raise InputError(f"columns of Arrow's kind {shown(kind.arguments[0])} cannot be read")
    if not length:
        return []
    # Buffers: a bit per text, where each text ends, and all texts one after the other in UTF-8.
    validity, ends, data = (_read_bytes(buffer) for buffer in buffers)
    places = np.frombuffer(ends, letters)[offset : offset + length + 1].tolist()
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    valid = bits[offset : offset + length].tolist() if validity else [1] * length
    pairs = zip(places[:-1], places[1:], valid, strict=True)
    return [data[start:end].decode() if is_valid else None for start, end, is_valid in pairs]


def _read_bytes(data: Any) -> bytes:
    """Unwrap bytes, which old protocols wrap in calls."""
    if data is None:
        return b""
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if _name(data) == "encode":  # bytes as text whose letters are the bytes
        return data.arguments[0].encode("latin1")
    return _read_bytes(data.arguments[0]) if data.arguments else b""  # bytearray, py_buffer
