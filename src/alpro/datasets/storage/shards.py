"""Videos in tar files in WebDataset's layout, read in any order by an index kept beside them."""

from __future__ import annotations

import logging
import multiprocessing
import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.storage.base import AmbiguousIdError, VideoStorage
from alpro.datasets.storage.directory_index import (
    VIDEO_EXTENSIONS,
    split_extension,
    tails,
    without_video_extension,
)
from alpro.datasets.storage.index_file import (
    Arrays,
    PackedIds,
    Stamp,
    index_file,
    read_index,
    stamp_of,
    write_index,
)
from alpro.datasets.storage.tar_reader import (
    Member,
    TarContent,
    id_of_member,
    is_member,
    read_member,
    read_members,
)
from alpro.errors import InputError, raise_scarcity
from alpro.user_files import reason_of, why_unreadable

logger = logging.getLogger(__name__)

_DTYPES = {**PackedIds.DTYPES, "shard": "<i4", "places": "<i8"}
_READERS = 8  # shards read at a time: network drives mostly wait
_NUM_COMPARED = 32  # members of a kept index that are compared with the shards


class VideoShards(VideoStorage):
    """A folder of tar files, or one, with members ``<video id><extension>``; others are ignored.

    An index allows reading in any order, as from a folder. The complete videos of a shard that was
    cut short are read.

    An id is a member's name without extension, and need not name folders. WebDataset's key, the
    part before the first dot, is no id: ``v_1`` would match ``v_1.5`` if it is missing itself.
    """

    def __init__(self, root: Path) -> None:
        if os.path.isfile(root) and (trouble := why_unreadable(root)):
            raise InputError(f"videos: {root} {trouble}")
        if not os.path.exists(root) or not shards_in(root):
            raise InputError(f"videos: there are no tar files in {root}")
        self.root = root

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    @property
    def described(self) -> str:
        return f"the tar shards in {self.root}" if self.root.is_dir() else f"the shard {self.root}"

    def fetch(self, video_id: str) -> bytes | None:
        # Look up the location, which the file must still be long enough for.
        number = self._number_of(video_id)
        if number is None:
            return None
        shard, member = self._index.location(number)
        try:
            if shard.stat().st_size < member.offset + member.size:
                raise VideoReadError(f"{shard} has become shorter while it was in use")
            data = read_member(shard, member)
        except OSError as error:
            raise_scarcity(error)
            raise VideoReadError(f"{shard}: {error.strerror}") from error
        # Otherwise the bytes of another video would be taken for this one's.
        if data is None:
            raise InputError(
                f"{shard} has changed since it was indexed; delete the index "
                f"{index_file(self.root)} if there is one, and start again: it is rebuilt"
            )
        return data

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        there = set(self._index.ids())
        return [
            video_id
            for video_id in dict.fromkeys(video_ids)
            if video_id not in there and self._number_of(video_id) is None
        ]

    def video_ids(self) -> list[str]:
        return sorted(self._index.ids())

    @cached_property
    def _index(self) -> ShardIndex:
        return load_index(self.root)

    def _number_of(self, video_id: str) -> int | None:
        # Full ids come first.
        names = dict.fromkeys((video_id, without_video_extension(video_id)))
        for name in names:
            number = self._index.number_of(name)
            if number is not None:
                return number
        # An id may omit folders if it is unique.
        for name in names:
            numbers = self._below_folders(name)
            if len(numbers) > 1:
                first, second = (self._index.video_id(number) for number in numbers[:2])
                raise AmbiguousIdError(
                    f"{self.root}: video id {video_id!r} names both {first} and {second}; give "
                    "ids with their folders"
                )
            if numbers:
                return numbers[0]
        return None

    def _below_folders(self, name: str) -> list[int]:
        """Numbers of the videos whose ids end in a name after folders."""
        hashes, numbers = self._tails
        first, end = (np.searchsorted(hashes, hash(name), side) for side in ("left", "right"))
        return [
            number
            for number in numbers[first:end].tolist()
            if self._index.video_id(number).endswith(f"/{name}")
        ]

    @cached_property
    def _tails(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) sorted hashes of ids without their folders, and (N,) numbers of the videos."""
        # For a million ids a dictionary took 226 MB in each worker, this takes 16.
        hashes, numbers = array("q"), array("q")
        for number, video_id in enumerate(self._index.ids()):
            for tail in tails(video_id):
                hashes.append(hash(tail))
                numbers.append(number)
        order = np.argsort(hashes, kind="stable")
        return np.asarray(hashes)[order], np.asarray(numbers)[order]


class ShardIndex:
    """Locations of videos, in a few flat arrays, since there may be a million of them.

    Shapes: ``V`` videos, sorted by their ids' bytes.
    """

    def __init__(self, shards: Sequence[Path], arrays: Arrays) -> None:
        self._shards = shards
        self._ids = PackedIds(arrays)
        self._shard = arrays["shard"]  # (V,) int32: the number of its shard
        self._places = arrays["places"].reshape(-1, 3)  # (V, 3) int64: see `Member`

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
        return number if number < len(self._ids) and self._ids[number] == wanted else None

    def location(self, number: int) -> tuple[Path, Member]:
        """The shard of a video, and its place there, by the position of its id."""
        shard = self._shards[self._shard[number]]
        return shard, Member(self.video_id(number), *self._places[number].tolist())

    def is_plausible(self, sizes: Sequence[int]) -> bool:
        """Return whether it fits shards of these sizes, and a sample of their members."""
        num_videos = len(self._shard)
        if not self._ids.are_sorted() or not len(self._ids) == len(self._places) == num_videos:
            return False
        if num_videos == 0:
            return True
        if self._shard.min() < 0 or self._shard.max() >= len(self._shards):
            return False
        # All members must lie within their shards.
        _, offset, size = self._places.T
        end = np.array(sizes, np.int64)[self._shard]
        is_outside = (self._places < 0) | (self._places > end[:, None])
        if is_outside.any() or (offset + size > end).any():
            return False
        # A sample of them must still be there.
        step = max(1, num_videos // _NUM_COMPARED)
        return all(is_member(*self.location(number)) for number in range(0, num_videos, step))


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
    notes, arrays = read_index(root, stamp, _DTYPES) or (None, {})
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
