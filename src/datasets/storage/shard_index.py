"""Which video lies where in a folder of tar shards: read once, and kept in a file beside them."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import multiprocessing
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.datasets.storage.names import VIDEO_EXTENSIONS, split_extension
from src.datasets.storage.tar_members import TarContent, id_of_member, read_members
from src.errors import InputError

logger = logging.getLogger(__name__)

_FORMAT = 2
_ARRAYS = ("ids", "starts", "shard", "span", "header")
_DIGEST_BYTES = 16  # of the sum that tells a damaged file
_READERS = 8
"""Shards read at a time: on network drives most of the time is waiting."""


Arrays = dict[str, np.ndarray]


class Location(NamedTuple):
    """Where the bytes of a video lie."""

    shard: Path
    offset: int
    size: int
    header: int


class ShardIndex:
    """Where each video lies. A few flat arrays, since there may be a million of them.

    Shapes: ``V`` videos, sorted by their ids' bytes.
    """

    def __init__(self, shards: Sequence[Path], arrays: Arrays) -> None:
        self._shards = shards
        self._ids: bytes = arrays["ids"].tobytes()  # one after the other, UTF-8
        self._starts = arrays["starts"]  # (V + 1,) int64: where each id begins
        self._shard = arrays["shard"]  # (V,) int32: the number of its shard
        self._span = arrays["span"]  # (V, 2) int64: its first byte and its size
        self._header = arrays["header"]  # (V,) uint32: `header_mark` of its member

    def __len__(self) -> int:
        return len(self._shard)

    def ids(self) -> Iterator[str]:
        """All ids, sorted."""
        for number in range(len(self)):
            yield self.video_id(number)

    def video_id(self, number: int) -> str:
        """An id by its place among the sorted ones."""
        return self._id_bytes(number).decode("utf-8", "surrogateescape")

    def number_of(self, video_id: str) -> int | None:
        """The place of an id among the sorted ones."""
        try:
            wanted = video_id.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # half a character, which no name has
            return None
        number = bisect_left(range(len(self)), wanted, key=self._id_bytes)
        return number if number < len(self) and self._id_bytes(number) == wanted else None

    def location(self, number: int) -> Location:
        """Where a video lies, by the place of its id."""
        offset, size = self._span[number].tolist()
        shard = self._shards[self._shard[number]]
        return Location(shard, offset, size, int(self._header[number]))

    def _id_bytes(self, number: int) -> bytes:
        return self._ids[self._starts[number] : self._starts[number + 1]]


def load_index(root: Path) -> ShardIndex:
    """The index of a folder of shards, or of one; made if there is none, or none of these shards.

    Shards that changed are told by their sizes and times; others by their members' headers, when
    these are read.

    Raises:
        InputError: two members stand for the same video id, or a file is no tar file.
    """
    shards = shards_in(root)
    stamps = [[shard.name, shard.stat().st_size, shard.stat().st_mtime_ns] for shard in shards]
    head: dict[str, Any] = {"format": _FORMAT, "shards": stamps}
    file = index_file(root)
    kept = _read(file)
    if kept is None or {key: kept[0].get(key) for key in head} != head:
        contents = _read_shards(shards)
        troubles = [
            f"{shard}: {content.trouble}"
            for shard, content in zip(shards, contents, strict=True)
            if content.trouble
        ]
        kept = head | {"troubles": troubles}, _arrays(shards, contents)
        with suppress(OSError):  # a place that must not be written to; then it is made each time
            _write(file, *kept)
    if multiprocessing.parent_process() is None:  # once, not by each worker
        for trouble in kept[0]["troubles"]:
            logger.warning("%s. What it lost counts as missing.", trouble)
    return ShardIndex(shards, kept[1])


def shards_in(root: Path) -> list[Path]:
    """The tar files of a folder, by name, or the file itself."""
    if root.is_file():
        return [root]
    return sorted(path for path in root.glob("*.tar") if not path.name.startswith("."))


def _read_shards(shards: Sequence[Path]) -> list[TarContent]:
    logger.info("looking through %d shards for their videos", len(shards))
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read_members, shards))


class _Entry(NamedTuple):
    """A member that is a video; the first of several of a shard that have one id goes by it."""

    rank: int
    name: str
    shard: int
    offset: int
    size: int
    header: int


def _arrays(shards: Sequence[Path], contents: Sequence[TarContent]) -> Arrays:
    """What `ShardIndex` holds."""
    entries = sorted(_by_id(shards, contents).items())
    ids = [video_id for video_id, _ in entries]
    spans = [(entry.offset, entry.size) for _, entry in entries]
    starts = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(video_id) for video_id in ids], out=starts[1:])
    return {
        "ids": np.frombuffer(b"".join(ids), np.uint8),
        "starts": starts,
        "shard": np.array([entry.shard for _, entry in entries], np.int32),
        "span": np.array(spans, np.int64).reshape(-1, 2),
        "header": np.array([entry.header for _, entry in entries], np.uint32),
    }


def _by_id(shards: Sequence[Path], contents: Sequence[TarContent]) -> dict[bytes, _Entry]:
    entries: dict[bytes, _Entry] = {}
    others: list[tuple[str, _Entry]] = []
    for number, content in enumerate(contents):
        for name, *place in content.members:
            video_id = id_of_member(name)
            if video_id is None:
                continue
            rank = VIDEO_EXTENSIONS.index(split_extension(name)[1])
            entry = _Entry(rank, name, number, *place)
            first = entries.get(_bytes(video_id), entry)
            if first is not entry:  # a.mp4 goes by the id a, and a.avi by a.avi
                if first.shard != number or first.rank == rank:
                    raise _two_of_one_id(video_id, first, entry, shards)
                entry, other = sorted((entry, first))
                others.append((video_id + VIDEO_EXTENSIONS[other.rank], other))
            entries[_bytes(video_id)] = entry
    for video_id, entry in others:
        if entries.setdefault(_bytes(video_id), entry) is not entry:
            raise _two_of_one_id(video_id, entries[_bytes(video_id)], entry, shards)
    return entries


def _two_of_one_id(
    video_id: str, first: _Entry, second: _Entry, shards: Sequence[Path]
) -> InputError:
    return InputError(
        f"videos: {shards[first.shard]} and {shards[second.shard]} both hold video id "
        f"{video_id!r} ({first.name}, {second.name}); remove one of the two"
    )


def _bytes(video_id: str) -> bytes:
    return video_id.encode("utf-8", "surrogateescape")


def index_file(root: Path) -> Path:
    """Where the index is kept of a folder of shards, or of one."""
    return root.with_name(f".{root.name}.index") if root.is_file() else root / ".videos.index"


def _read(file: Path) -> tuple[dict[str, Any], Arrays] | None:
    """What is kept in a file; ``None`` if there is none, or it is damaged, or of another format."""
    try:
        with file.open("rb") as opened:
            digest, data = opened.read(_DIGEST_BYTES), opened.read()
    except OSError:
        return None
    if digest != _digest(data):
        return None
    parts = io.BytesIO(data)
    head = json.loads(np.load(parts, allow_pickle=False).tobytes())
    if head["format"] != _FORMAT:
        return None
    return head, {name: np.load(parts, allow_pickle=False) for name in _ARRAYS}


def _write(file: Path, head: dict[str, Any], arrays: Arrays) -> None:
    """Write atomically; several processes may do it at once."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    parts = io.BytesIO()
    np.save(parts, np.frombuffer(json.dumps(head).encode(), np.uint8))
    for name in _ARRAYS:
        np.save(parts, arrays[name])
    try:
        with temporary.open("wb") as opened:
            opened.write(_digest(parts.getbuffer()))
            opened.write(parts.getbuffer())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
