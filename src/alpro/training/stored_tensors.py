"""Lazily read tensors of PyTorch and safetensors files.

Shape and place of a tensor are checked against the file size before any memory is allocated; unused
tensors, such as an optimizer's state, are never read.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch
from torch import Tensor

from alpro.errors import RunError
from alpro.training.inert_pickle import BrokenPickleError, Foreign, load_inert
from alpro.user_files import reason_of

MAX_PICKLE_BYTES = 256 << 20  # of an archive's pickle, which holds no tensor data
MAX_EXPANDED = 1 << 24  # elements of an expanded view
MAX_DIMENSIONS = 25  # of a tensor; weights have 5 at most
MAX_COUNT = 1 << 60  # of elements; beyond it byte counts exceed 64 bits
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before PyTorch 1.6
COUNT_BYTES = 8  # of the element count before each storage of such a file

DAMAGED = "the file is truncated or damaged"
OTHER_ORDER = "its numbers have their bytes in another order than this machine's (big-endian)"

_LOCAL_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a ZIP member: magic, lengths of name and extra
_UNREAD_LAYOUTS = {
    "_rebuild_sparse_tensor": "is sparse",
    "_rebuild_sparse_csr_tensor": "is sparse",
    "_rebuild_qtensor": "is quantised",
    "_rebuild_meta_tensor_no_storage": "is a meta tensor: it has a shape, but no numbers",
    "_rebuild_nested_tensor": "is a nested tensor",
    "_rebuild_wrapper_subclass": "is a tensor of a class of its own, or spread over processes",
    "_rebuild_device_tensor_from_numpy": "is an array of NumPy",
}
_STORAGES = {  # class of a storage, on any device -> dtype
    f"{name}Storage": dtype
    for name, dtype in (
        *(("Double", torch.float64), ("Float", torch.float32), ("Half", torch.float16)),
        *(("BFloat16", torch.bfloat16), ("Long", torch.int64), ("Int", torch.int32)),
        *(("Short", torch.int16), ("Char", torch.int8), ("Byte", torch.uint8)),
        *(("Bool", torch.bool), ("ComplexDouble", torch.complex128)),
        ("ComplexFloat", torch.complex64),
    )
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


class BrokenFileError(ValueError):
    """An unreadable weight file; the message is the reason."""


class UnreadableTensorError(ValueError):
    """An unreadable tensor; the message is the reason, which follows its name."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    """Reads it into new memory; may raise `UnreadableTensorError`."""
    identity: object = None
    """Equal for tied tensors."""


class _Storage(NamedTuple):
    """Storage of one or more tensors."""

    key: str
    dtype: torch.dtype | None
    """None for bytes, whose dtype each tensor names."""


class _Place(NamedTuple):
    """Byte range of a file."""

    start: int
    size: int


class _Layout(NamedTuple):
    """A tensor's layout in a storage, in elements."""

    storage: _Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_archive(file: IO[bytes]) -> Any:
    """Describe the content of a ``torch.save`` file: plain values, `StoredTensor`, `Foreign`.

    The file must stay open while tensors are read.

    Raises:
        BrokenFileError, BrokenPickleError, zipfile.BadZipFile: the file is damaged.
    """
    # Find the members of the archive: one pickle, and the bytes of each storage.
    members = {member.filename: member for member in zipfile.ZipFile(file).infolist()}
    root = next(iter(members), "").split("/")[0]
    description = members.get(f"{root}/data.pkl")
    if description is None:
        raise BrokenFileError(DAMAGED)
    if description.file_size > MAX_PICKLE_BYTES:
        size = f"{description.file_size:,} bytes"
        raise BrokenFileError(f"its description of the tensors has {size}, which cannot be right")
    order = members.get(f"{root}/byteorder")
    if order is not None and _content(file, _place_of(file, order)) == b"big":
        raise BrokenFileError(OTHER_ORDER)

    def place_of(key: str) -> _Place:
        member = members.get(f"{root}/data/{key}")
        return _Place(0, 0) if member is None else _place_of(file, member)

    pickled = BytesIO(_content(file, _place_of(file, description)))
    return _Reader(file, place_of).describe(pickled)


def read_legacy(file: IO[bytes]) -> Any:
    """Describe the content of a file that ``torch.save`` wrote before PyTorch 1.6."""
    # Five pickles: a magic number, the version, the system, the content, the storages' keys.
    places: dict[str, _Place] = {}
    reader = _Reader(file, lambda key: places.get(key, _Place(0, 0)))
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        magic, _, system = (reader.describe(mapped) for _ in range(3))
        if magic != LEGACY_MAGIC:
            raise BrokenPickleError("not written by torch.save")
        if not (isinstance(system, dict) and system.get("little_endian") is True):
            raise BrokenFileError(OTHER_ORDER)
        content, keys = reader.describe(mapped), reader.describe(mapped)
        # Then the element count and the bytes of each storage, in the order of the keys.
        for key in keys if isinstance(keys, list) else ():
            (count,) = struct.unpack("<q", mapped.read(COUNT_BYTES).rjust(COUNT_BYTES, b"\xff"))
            dtype = reader.dtypes.get(str(key))
            size = count * (dtype.itemsize if dtype is not None else 1)
            place = _Place(mapped.tell(), size)
            if count < 0 or place.start + size > len(mapped):
                raise BrokenFileError(DAMAGED)
            places[str(key)] = place
            mapped.seek(place.start + size)
    return content


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Describe the content of a safetensors file, which the library checks against its size."""
    from safetensors import SafetensorError, safe_open

    # Names and shapes now, tensors when they are used.
    try:
        handle = safe_open(path, framework="pt")
        names = handle.keys()
        shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise BrokenFileError(DAMAGED) from error

    def read(name: str) -> Tensor:
        try:
            return cast("Tensor", handle.get_tensor(name))
        except (SafetensorError, ValueError) as error:  # a dtype that PyTorch lacks
            raise UnreadableTensorError(f"cannot be read: {error}") from error

    return {
        name: StoredTensor(shape, partial(read, name), identity=(path, name))
        for name, shape in shapes.items()
    }


class _Reader:
    """Describes the tensors of one file."""

    def __init__(self, file: IO[bytes], place_of: Callable[[str], _Place]) -> None:
        self._file = file
        self._place_of = place_of
        self.dtypes: dict[str, torch.dtype | None] = {}
        """Dtype of each storage that a pickle has named."""

    def describe(self, pickled: BytesIO | mmap.mmap) -> Any:
        return load_inert(pickled, rebuild=self._rebuilt, persistent=self._storage)

    def _storage(self, identity: Any) -> Any:
        # ("storage", class, key, device, size, view), or ("module", class, source)
        if isinstance(identity, tuple) and len(identity) >= 2 and identity[0] == "module":
            return identity[1]
        if not (isinstance(identity, tuple) and len(identity) >= 5 and identity[0] == "storage"):
            return Foreign("a persistent object", identity)
        name = str(identity[1]).rpartition(".")[2]
        dtype = _STORAGES.get(name)
        is_known = name == "UntypedStorage" or dtype is not None
        is_whole = len(identity) == 5 or identity[5] is None
        if not (is_known and is_whole):
            return Foreign(f"torch.{name}", identity)
        storage = _Storage(str(identity[2]), dtype)
        self.dtypes[storage.key] = dtype
        return storage

    def _rebuilt(self, name: str, arguments: Any) -> Any:
        """Describe a tensor from its rebuild call; None for other calls."""
        # Parameters wrap a tensor, subclasses another call; plain tensors come last.
        module, _, function = name.rpartition(".")
        if not (module in ("torch._utils", "torch._tensor") and isinstance(arguments, tuple)):
            return None
        if function.startswith("_rebuild_parameter"):
            data = arguments[0] if arguments else None
            return data if isinstance(data, StoredTensor) else None
        if function == "_rebuild_from_type_v2" and len(arguments) >= 3:
            return self._rebuilt(str(arguments[0]), arguments[2])
        if function in _UNREAD_LAYOUTS:
            return StoredTensor((), partial(_refuse, _UNREAD_LAYOUTS[function]))
        if function in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return self._strided(arguments, named=function.endswith("v3"))
        return None

    def _strided(self, arguments: tuple[Any, ...], *, named: bool) -> StoredTensor | None:
        if len(arguments) < (7 if named else 4) or not isinstance(arguments[0], _Storage):
            return None
        # Check the declared shape, strides and dtype before computing with them.
        storage, offset, shape, strides, *rest = arguments
        dtype = _DTYPES.get(str(rest[2])) if named else storage.dtype
        is_shape = _are_sizes(shape) and math.prod(max(1, size) for size in shape) <= MAX_COUNT
        if dtype is None or not _are_sizes((offset,)) or not is_shape:
            return StoredTensor((), partial(_refuse, f"has no valid shape: {DAMAGED}"))
        if not _are_sizes(strides) or len(strides) != len(shape):
            return StoredTensor(shape, partial(_refuse, f"has no valid strides: {DAMAGED}"))
        metadata = rest[3:4] if named else rest[2:3]
        if metadata and metadata[0]:
            return StoredTensor(shape, partial(_refuse, "is a conjugate or negative view"))
        layout = _Layout(storage, dtype, offset, shape, strides)
        return StoredTensor(shape, partial(self._read, layout), identity=(self._file.name, layout))

    def _read(self, layout: _Layout) -> Tensor:
        # Check the layout against the bytes of the storage.
        _, dtype, offset, shape, strides = layout
        steps = ((size - 1) * step for size, step in zip(shape, strides, strict=True))
        extent = 0 if 0 in shape else 1 + sum(steps)
        try:
            place, count = self._place_of(layout.storage.key), math.prod(shape)
        except BrokenFileError as error:
            raise UnreadableTensorError(f"cannot be read: {error}") from error
        if (offset + extent) * dtype.itemsize > place.size:
            there = place.size // dtype.itemsize
            _refuse(f"needs {offset + extent:,} numbers, the file has {there:,} for it: {DAMAGED}")
        if count > max(extent, MAX_EXPANDED):
            _refuse(
                f"is an expanded view: it declares {count:,} numbers, of which the file holds "
                f"{extent:,}. Save it with .contiguous()"
            )

        # Read the bytes into new memory.
        try:
            numbers = torch.empty(extent * dtype.itemsize, dtype=torch.uint8)
        except RuntimeError as error:
            need = f"{extent * dtype.itemsize:,} bytes of a tensor"
            raise RunError(f"cannot allocate memory for {need} of {self._file.name}.") from error
        try:
            self._file.seek(place.start + offset * dtype.itemsize)
            num_read = self._file.readinto(numbers.numpy())  # type: ignore[attr-defined]
        except OSError as error:
            raise UnreadableTensorError(f"cannot be read: {reason_of(error)}") from error
        if num_read != len(numbers):
            _refuse(f"ends early: {DAMAGED}")
        return numbers.view(dtype).as_strided(shape, strides)


def _refuse(reason: str) -> Tensor:
    raise UnreadableTensorError(reason)


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value <= MAX_COUNT for value in values)
    )


def _place_of(file: IO[bytes], member: zipfile.ZipInfo) -> _Place:
    """Byte range of a member, which ``torch.save`` never compresses."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise BrokenFileError(
            "its parts are compressed, which torch.save does not do. Unpack it, and pack it "
            "without compression (zip -0 -r)"
        )
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size:
        raise BrokenFileError(DAMAGED)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != _LOCAL_MAGIC or member.file_size != member.compress_size:
        raise BrokenFileError(DAMAGED)
    return _Place(start, member.file_size)


def _content(file: IO[bytes], place: _Place) -> bytes:
    file.seek(place.start)
    return file.read(place.size)
