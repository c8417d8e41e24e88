"""Videos in tar files, as WebDataset lays them out, read in any order."""

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
    """A folder of tar files, or one, with members ``<video id><extension>``; others are not read.

    Where each video lies is looked up once, so that order, evaluation and resuming are those of a
    folder. Of a shard that was cut short the videos that are there whole are read.

    An id is a member's name without extension; where there is none, the folders of a member's name
    need not be named. What is before the first dot, WebDataset's key, is no id: ``v_1`` would stand
    for ``v_1.5`` if it is missing itself.
    """

    def __init__(self, root: Path) -> None:
        """Look whether there are shards.

        Raises:
            InputError: there are none.
        """
        if os.path.isfile(root) and (trouble := why_unreadable(root)):
            raise InputError(f"videos: {root} {trouble}")
        if not os.path.exists(root) or not shards_in(root):
            raise InputError(f"videos: there are no tar files in {root}")
        self.root = root

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    @property
    def described(self) -> str:
        """The shards, for messages."""
        return f"the tar shards in {self.root}" if self.root.is_dir() else f"the shard {self.root}"

    def fetch(self, video_id: str) -> bytes | None:
        """A video's bytes, or ``None`` where there is none.

        Raises:
            VideoReadError: it is there, but cannot be read.
            AmbiguousIdError: the id names two videos.
            InputError: the shards have changed, or two hold the same id.
        """
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
        if data is None:  # else another video's bytes would be taken for this one's
            raise InputError(
                f"{shard} has changed since it was looked through; start again, without the file "
                f"{index_file(self.root)} if there is one: it is made anew"
            )
        return data

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a video, once each, in order of first appearance.

        Raises:
            AmbiguousIdError: an id names two videos.
        """
        there = set(self._index.ids())
        return [
            video_id
            for video_id in dict.fromkeys(video_ids)
            if video_id not in there and self._number_of(video_id) is None
        ]

    def video_ids(self) -> list[str]:
        """The ids of all videos, sorted."""
        return sorted(self._index.ids())

    @cached_property
    def _index(self) -> ShardIndex:
        return load_index(self.root)

    def _number_of(self, video_id: str) -> int | None:
        names = dict.fromkeys((video_id, without_video_extension(video_id)))
        for name in names:
            number = self._index.number_of(name)
            if number is not None:
                return number
        for name in names:
            found = self._below_folders(name)
            if len(found) > 1:
                first, second = (self._index.video_id(number) for number in found[:2])
                raise AmbiguousIdError(
                    f"{self.root}: video id {video_id!r} names both {first} and {second}; give "
                    "ids with their folders"
                )
            if found:
                return found[0]
        return None

    def _below_folders(self, name: str) -> list[int]:
        """The videos whose ids end in a name, after folders."""
        hashes, numbers = self._tails
        first, end = (np.searchsorted(hashes, hash(name), side) for side in ("left", "right"))
        return [
            number
            for number in numbers[first:end].tolist()
            if self._index.video_id(number).endswith(f"/{name}")
        ]

    @cached_property
    def _tails(self) -> tuple[np.ndarray, np.ndarray]:
        """Of ids without their folders, (N,) sorted hashes and (N,) numbers of the videos.

        For a million ids a dictionary took 226 MB in each worker, this takes 16.
        """
        hashes, numbers = array("q"), array("q")
        for number, video_id in enumerate(self._index.ids()):
            for tail in tails(video_id):
                hashes.append(hash(tail))
                numbers.append(number)
        order = np.argsort(hashes, kind="stable")
        return np.asarray(hashes)[order], np.asarray(numbers)[order]
