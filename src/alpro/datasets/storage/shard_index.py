"""Index of the videos in a folder of tar shards, built once and kept in a file beside them."""

from __future__ import annotations

import logging
import multiprocessing
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alpro.datasets.storage.base import AmbiguousIdError
from alpro.datasets.storage.directory_index import VIDEO_EXTENSIONS, split_extension
from alpro.datasets.storage.index_file import (
    Arrays,
    PackedIds,
    Stamp,
    read_index,
    stamp_of,
    write_index,
)
from alpro.datasets.storage.tar_reader import (
    Member,
    TarContent,
    id_of_member,
    is_member,
    read_members,
)
from alpro.errors import InputError
from alpro.user_files import reason_of

logger = logging.getLogger(__name__)

_DTYPES = {**PackedIds.DTYPES, "shard": "<i4", "places": "<i8"}
_READERS = 8  # shards read at a time: network drives mostly wait
_NUM_COMPARED = 32  # members of a kept index that are compared with the shards


class ShardIndex:
    """Locations of videos, in a few flat arrays, since there may be a million of them.

    Shapes: ``V`` videos, sorted by their ids' bytes.
    """

    def __init__(self, shards: Sequence[Path], arrays: Arrays) -> None:
        self._shards = shards
        self._ids = PackedIds(arrays)
        self._shard = arrays["shard"]  # (V,) int32: the number of its shard
        self._places = arrays["places"].reshape(-1, 3)  # (V, 3) int64: see `Member`

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Iterator[str]:
        """All ids, sorted."""
        return (video_id.decode("utf-8", "surrogateescape") for video_id in self._ids)

    def video_id(self, number: int) -> str:
        """The id at a position of the sorted ones."""
        return self._ids[number].decode("utf-8", "surrogateescape")

    def number_of(self, video_id: str) -> int | None:
        """The position of an id among the sorted ones."""
        try:
            wanted = _bytes(video_id)
        except UnicodeEncodeError:  # a lone surrogate, which no name has
            return None
        number = bisect_left(self._ids, wanted)
        return number if number < len(self) and self._ids[number] == wanted else None

    def location(self, number: int) -> tuple[Path, Member]:
        """The shard of a video, and its place there, by the position of its id."""
        shard = self._shards[self._shard[number]]
        return shard, Member(self.video_id(number), *self._places[number].tolist())

    def is_plausible(self, sizes: Sequence[int]) -> bool:
        """Return whether it fits shards of these sizes, and a sample of their members."""
        if not self._ids.are_sorted() or not len(self._shard) == len(self._places) == len(self):
            return False
        if len(self) == 0:
            return True
        if self._shard.min() < 0 or self._shard.max() >= len(self._shards):
            return False
        # All members must lie within their shards.
        _, offset, size = self._places.T
        end = np.array(sizes, np.int64)[self._shard]
        if (self._places < 0).any() or (self._places > end[:, None]).any():
            return False
        if (offset + size > end).any():
            return False
        # A sample of them must still be there.
        step = max(1, len(self) // _NUM_COMPARED)
        return all(is_member(*self.location(number)) for number in range(0, len(self), step))


def load_index(root: Path) -> ShardIndex:
    """Load the index of a folder of shards, or of one shard; build it if there is no valid one.

    Changes of shards are recognised by their sizes and times, or by their members' headers, when
    these are read.

    Raises:
        InputError: two members have the same video id, or a file is no tar file.
    """
    # Reuse the index that is kept beside the shards.
    shards = shards_in(root)
    try:
        stamp = stamp_of(shards)
    except OSError as error:
        raise InputError(f"videos: {error.filename}: {reason_of(error)}") from error
    index, troubles = _kept(root, shards, stamp)
    # Build one otherwise, and keep it.
    if index is None:
        logger.info("scanning %d shards for videos", len(shards))
        with ThreadPoolExecutor(_READERS) as pool:
            contents = list(pool.map(read_members, shards))
        troubles = [
            f"{shard}: {content.trouble}".encode("utf-8", "backslashreplace").decode()
            for shard, content in zip(shards, contents, strict=True)
            if content.trouble
        ]
        arrays = _arrays(shards, contents)
        write_index(root, stamp, {"troubles": troubles}, arrays)
        index = ShardIndex(shards, arrays)
    # Warn once, not in each worker.
    if multiprocessing.parent_process() is None:
        for trouble in troubles:
            logger.warning("%s. Lost videos count as missing.", trouble)
    return index


def _kept(root: Path, shards: Sequence[Path], stamp: Stamp) -> tuple[ShardIndex | None, list[str]]:
    """Load the kept index, if it is valid, and the notes of damaged shards."""
    kept = read_index(root, stamp, _DTYPES)
    if kept is None:
        return None, []
    notes, arrays = kept
    troubles = notes.get("troubles") if isinstance(notes, dict) else None
    if not isinstance(troubles, list) or len(arrays["places"]) % 3:
        return None, []
    index = ShardIndex(shards, arrays)
    is_good = index.is_plausible([int(size) for _, size, _ in stamp])
    return (index, [str(one) for one in troubles]) if is_good else (None, [])


def shards_in(root: Path) -> list[Path]:
    """The tar files of a folder, by name, or the file itself."""
    if os.path.isfile(root):
        return [root]
    paths = (path for path in root.glob("*.tar") if not path.name.startswith("."))
    return sorted(path for path in paths if os.path.isfile(path))


class _Entry(NamedTuple):
    """Index entry of one video; duplicates within a shard keep their extension in the id."""

    rank: int
    name: str
    shard: int
    place: tuple[int, int, int]


def _arrays(shards: Sequence[Path], contents: Sequence[TarContent]) -> Arrays:
    """Build the arrays of a `ShardIndex`."""
    entries = sorted(_by_id(shards, contents).items())
    return {
        **PackedIds.pack([video_id for video_id, _ in entries]),
        "shard": np.array([entry.shard for _, entry in entries], np.int32),
        "places": np.array([entry.place for _, entry in entries], np.int64).reshape(-1),
    }


def _by_id(shards: Sequence[Path], contents: Sequence[TarContent]) -> dict[bytes, _Entry]:
    entries: dict[bytes, _Entry] = {}
    others: list[tuple[str, _Entry]] = []
    for number, content in enumerate(contents):
        for name, *(start, offset, size) in content.members:
            video_id = id_of_member(name)
            if video_id is None:
                continue
            rank = VIDEO_EXTENSIONS.index(split_extension(name)[1])
            entry = _Entry(rank, name, number, (start, offset, size))
            # Of a.mp4 and a.avi in one shard, the preferred extension gets the id a, the other
            # keeps its own: a.avi.
            first = entries.get(_bytes(video_id), entry)
            if first is not entry:
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
) -> AmbiguousIdError:
    return AmbiguousIdError(
        f"videos: {shards[first.shard]} and {shards[second.shard]} both hold video id "
        f"{video_id!r} ({first.name}, {second.name}); remove one of the two"
    )


def _bytes(video_id: str) -> bytes:
    return video_id.encode("utf-8", "surrogateescape")
