"""Videos in tar files in WebDataset's layout, read in any order."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.storage.base import AmbiguousIdError, VideoStorage
from alpro.datasets.storage.directory_index import tails, without_video_extension
from alpro.datasets.storage.index_file import index_file
from alpro.datasets.storage.shard_index import ShardIndex, load_index, shards_in
from alpro.datasets.storage.tar_reader import read_member
from alpro.errors import InputError, raise_scarcity
from alpro.user_files import why_unreadable


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
