"""Pickled pandas DataFrames, read without pandas.

A pickle is a program: it names functions and says what to call them with. Here each name that the
pickle of a DataFrame has reason to use stands for an inert record of how it was called, from which
the columns are then read; any other name is refused. So nothing of a pickle is ever run, and which
pandas wrote it does not matter: 1.0 to 3.1 have been read. Memory is limited meanwhile.

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
_MAX_COLUMNS = 10_000  # tables of annotations have a few
_MAX_MESSAGE = 200  # characters that a message takes over of a file
_PLAIN_KINDS = "biuf"  # numpy's letters for truth values and numbers
# What unpickling and reading records of a damaged file can meet.
_DAMAGES = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError),
    *(AttributeError, OverflowError, RecursionError),
)


class _Recorded:
    """How a name was called, and the state that it was given; does nothing."""

    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any, **_named: Any) -> _Recorded:
        recorded = super().__new__(cls)
        recorded.arguments = arguments
        recorded.state = None
        return recorded

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _RecordedPartial(_Recorded):
    """A function with some arguments given, to be called with the others (pandas 1.3)."""

    def __call__(self, *arguments: Any) -> _Recorded:
        """What calling the function records; of pandas', it is never itself a partial."""
        function = self.arguments[0]
        if function not in _STAND_INS.values() or function is _STAND_INS["partial"]:
            raise pickle.UnpicklingError(f"a partial of {shown(function)}")
        return function(*arguments)


_MODULES = {
    "DataFrame": ("pandas", "pandas.core.frame"),
    "BlockManager": ("pandas.core.internals.managers", "pandas.core.internals"),
    "_unpickle_block": ("pandas._libs.internals",),
    "new_block": ("pandas.core.internals.blocks",),
    "partial": ("functools",),
    "_new_Index": ("pandas.core.indexes.base",),
    "Index": ("pandas", "pandas.core.indexes.base"),
    "RangeIndex": ("pandas", "pandas.core.indexes.range"),
    "Int64Index": ("pandas.core.indexes.numeric",),
    "UInt64Index": ("pandas.core.indexes.numeric",),
    "Float64Index": ("pandas.core.indexes.numeric",),
    "StringArray": ("pandas.arrays", "pandas.core.arrays.string_"),
    "StringArrayNumpySemantics": ("pandas.core.arrays.string_",),
    "ArrowStringArray": ("pandas.arrays", "pandas.core.arrays.string_arrow"),
    "ArrowStringArrayNumpySemantics": ("pandas.core.arrays.string_arrow",),
    "StringDtype": ("pandas", "pandas.core.arrays.string_"),
    "IntegerArray": ("pandas.arrays", "pandas.core.arrays.integer"),
    "Int64Dtype": ("pandas", "pandas.core.arrays.integer"),
    "DatetimeArray": ("pandas.arrays", "pandas.core.arrays.datetimes"),
    "__pyx_unpickle_NDArrayBacked": ("pandas._libs.arrays",),
    "NA": ("pandas", "pandas._libs.missing"),
    "chunked_array": ("pyarrow.lib",),
    "_restore_array": ("pyarrow.lib",),
    "type_for_alias": ("pyarrow.lib",),
    "py_buffer": ("pyarrow.lib",),
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_frombuffer": ("numpy.core.numeric", "numpy._core.numeric"),
    "ndarray": ("numpy",),
    "dtype": ("numpy",),
    "encode": ("_codecs",),
    "slice": ("builtins", "__builtin__"),
    "bytearray": ("builtins", "__builtin__"),
}
"""Names that the pickle of a DataFrame uses, and where they live in one version or another."""

_STAND_INS: dict[str, type[_Recorded]] = {
    name: type(name, (_RecordedPartial if name == "partial" else _Recorded,), {})
    for name in _MODULES
}


class _RecordingUnpickler(pickle.Unpickler):
    """Calls stand-ins only, and refuses names that have none."""

    def find_class(self, module: str, name: str) -> type[_Recorded]:
        if module not in _MODULES.get(name, ()):
            asked = shortened(f"{module}.{name}", most=_MAX_MESSAGE)
            raise InputError(
                f"the pickle asks for {asked}, which a DataFrame of plain columns has no need of "
                f"and which may run anything; {_CONVERT}"
            )
        return _STAND_INS[name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError(f"persistent id {shown(pid)}")


def read_pickled_table(path: Path, choose: Choice | None = None) -> Columns:
    """Read columns of a pickled pandas DataFrame, whatever pandas wrote it.

    Args:
        path: the file; plain numbers and texts can be read of it.
        choose: the columns wanted, by the names of all; all where ``None``.

    Raises:
        InputError: for anything else than such a pickle, without having run any of it.
    """
    try:
        with path.open("rb") as file, limited_memory(path, size=path.stat().st_size):
            frame = _RecordingUnpickler(file).load()
            if _name(frame) != "DataFrame":
                raise InputError(f"a DataFrame is expected, not {_name(frame)}; {_CONVERT}")
            columns = _read_frame(frame, choose)
        TextChecks(path).check(columns)
        return columns
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
    """The wanted columns, in the table's order; what the others hold is never looked at."""
    manager = frame.state.get("_mgr", frame.state.get("_data"))  # _data before pandas 1.1
    if manager.arguments:
        blocks, (axis, _rows) = manager.arguments
        pairs = [block.arguments[:2] for block in blocks]
    else:  # before pandas 1.3
        (*_, state) = manager.state
        axis, _rows = state["0.14.1"]["axes"]
        pairs = [(block["values"], block["mgr_locs"]) for block in state["0.14.1"]["blocks"]]
    labels = _read_labels(axis)
    if len(labels) > _MAX_COLUMNS:
        raise InputError(f"{len(labels)} columns, more than {_MAX_COLUMNS}; {_CONVERT}")
    names = [str(label) for label in labels]
    wanted: Mapping[str, str | None] = dict.fromkeys(names) if choose is None else choose(names)
    found: dict[int, list[Any]] = {}
    for values, places in pairs:
        positions = _read_places(places)
        if len(positions) > len(names):
            raise InputError(f"a block of more columns than have names ({len(names)}); {_CONVERT}")
        for row, position in enumerate(positions):
            if names[position] in wanted:
                found[position] = _read_column(values, row, name=names[position])
    columns = {
        wanted[names[position]] or names[position]: found[position] for position in sorted(found)
    }
    if len(columns) < len(found) or len({len(values) for values in columns.values()}) > 1:
        raise InputError(f"columns of one name or of several lengths ({shown(names)}); {_CONVERT}")
    return columns


def _read_labels(index: _Recorded) -> Sequence[Any]:
    """The labels of an index."""
    _kind, state = index.arguments
    if "data" in state:
        return _read_column(state["data"], 0, name="of names")
    return range(state["start"], state["stop"], state["step"])


def _read_places(places: Any) -> Sequence[int]:
    """Positions in the table of a block's columns."""
    if _name(places) != "slice":
        return _read_array(places).ravel().tolist()
    start, stop, step = places.arguments
    return range(start, stop, step)


def _read_column(values: Any, row: int, *, name: str) -> list[Any]:
    """One row of a block: a column's values, with None for those that are missing."""
    kind = _name(values)
    if kind.startswith("ArrowString"):
        state = values.state
        return _read_arrow(state.get("_pa_array", state.get("_data")))
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
    return value is _STAND_INS["NA"] or (isinstance(value, float) and value != value)


_ARRAYS = ("_reconstruct", "_frombuffer")


def _read_array(array: _Recorded) -> np.ndarray:
    """A numpy array, (R,) or (C, R)."""
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
    """The texts of an Arrow array: the end of each in one text after the other, as UTF-8."""
    if _name(array) == "chunked_array":
        return [text for chunk in array.arguments[0] for text in _read_arrow(chunk)]
    ((kind, length, _missing, offset, buffers, *_),) = array.arguments
    if kind.arguments[0] not in ("large_string", "string"):
        raise InputError(f"columns of Arrow's kind {shown(kind.arguments[0])} cannot be read")
    validity, ends, data = (_read_bytes(buffer) for buffer in buffers)
    if not length:
        return []
    wide = kind.arguments[0] == "large_string"
    places = np.frombuffer(ends, "<i8" if wide else "<i4")[offset : offset + length + 1].tolist()
    bits = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little")
    valid = bits[offset : offset + length].tolist() if validity else [1] * length
    pairs = zip(places[:-1], places[1:], valid, strict=True)
    return [data[start:end].decode() if is_valid else None for start, end, is_valid in pairs]


def _read_bytes(data: Any) -> bytes:
    """Bytes, which old protocols wrap in calls."""
    if data is None:
        return b""
    if isinstance(data, bytes | bytearray):
        return bytes(data)
    if _name(data) == "encode":  # bytes as text whose letters are the bytes
        return data.arguments[0].encode("latin1")
    return _read_bytes(data.arguments[0]) if data.arguments else b""  # bytearray, py_buffer
