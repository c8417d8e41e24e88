"""Index of a storage, kept in a file beside it, since a scan takes long.

A file that is absent, damaged, of another format, or older than a change of the storage is ignored:
the storage is scanned, and the file written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from alpro.user_files import JsonError, parse_json

_FORMAT = 3
_DIGEST_BYTES = 16  # of the checksum
_MAX_BYTES = 1 << 33  # of an index; a million videos take 60 million
_LENGTH = struct.Struct("<Q")

Arrays = dict[str, np.ndarray]
Stamp = list[list[str | int]]
"""Names, sizes and times of the files that an index is of."""


def index_file(root: Path) -> Path:
    """Path of the index of a folder or file."""
    is_file = os.path.isfile(root)
    return root.with_name(f".{root.name}.index") if is_file else root / ".videos.index"


def stamp_of(files: Sequence[Path]) -> Stamp:
    """Return a value that changes when one of the files does.

    Raises:
        OSError: one of them is not there.
    """
    states = [(file.name, file.stat()) for file in files]
    return [[ascii(name), state.st_size, state.st_mtime_ns] for name, state in states]


def read_index(
    root: Path, stamp: Stamp, dtypes: Mapping[str, str]
) -> tuple[dict[str, Any], Arrays] | None:
    """Notes and one-dimensional arrays of a storage's index; None if there is none of this stamp.

    The content is not to be trusted: the checksum shows only that the file is complete.
    """
    # Read the file, and check that it is complete.
    file = index_file(root)
    try:
        if not os.path.isfile(file) or file.stat().st_size > _MAX_BYTES:
            return None
        data = file.read_bytes()
        body = memoryview(data)[_DIGEST_BYTES:]
        if data[:_DIGEST_BYTES] != _digest(body):
            return None
        # It begins with a JSON head and its length.
        (length,) = _LENGTH.unpack_from(body)
        begin = _LENGTH.size + length
        head = parse_json(bytes(body[_LENGTH.size : begin]).decode())
        if head["format"] != _FORMAT or head["stamp"] != stamp:
            return None
        # The arrays follow without gaps.
        arrays = {}
        for name, dtype in dtypes.items():
            end = begin + head["bytes"][name]
            arrays[name] = np.frombuffer(body[begin:end], dtype)
            begin = end
        return head["notes"], arrays
    except (OSError, JsonError, ValueError, TypeError, KeyError, IndexError, struct.error):
        return None


def write_index(root: Path, stamp: Stamp, notes: Mapping[str, Any], arrays: Arrays) -> None:
    """Write an index of JSON notes and one-dimensional arrays, in the order of their reading.

    Several processes may write at once. A folder that is not writable is no error.
    """
    # Serialize the head, then the arrays.
    file = index_file(root)
    sizes = {name: array.nbytes for name, array in arrays.items()}
    head = {"format": _FORMAT, "stamp": stamp, "notes": notes, "bytes": sizes}
    text = json.dumps(head).encode()
    parts = (_LENGTH.pack(len(text)), text, *(array.tobytes() for array in arrays.values()))
    body = b"".join(parts)
    # Write to a temporary file, and rename it.
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        try:
            with temporary.open("xb") as opened:  # never through a link
                opened.write(_digest(body))
                opened.write(body)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


class PackedIds:
    """Sorted ids in flat arrays, since there may be a million of them.

    Shapes: ``V`` videos.
    """

    DTYPES: Mapping[str, str] = {"ids": "u1", "starts": "<i8"}

    def __init__(self, arrays: Arrays) -> None:
        self._ids: bytes = arrays["ids"].tobytes()  # one after the other, UTF-8
        self._starts = arrays["starts"]  # (V + 1,) int64: where each id begins

    @staticmethod
    def pack(ids: Sequence[bytes]) -> Arrays:
        """Pack sorted ids into arrays."""
        starts = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(video_id) for video_id in ids], out=starts[1:])
        return {"ids": np.frombuffer(b"".join(ids), np.uint8), "starts": starts}

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._ids[self._starts[number] : self._starts[number + 1]]

    def __iter__(self) -> Iterator[bytes]:
        starts = self._starts.tolist()
        return (self._ids[a:b] for a, b in zip(starts, starts[1:], strict=False))

    def are_sorted(self) -> bool:
        """Return whether the arrays are those of ids that are sorted and distinct."""
        starts = self._starts
        if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(self._ids):
            return False
        if (np.diff(starts) < 0).any():
            return False
        return all(earlier < later for earlier, later in pairwise(self))
