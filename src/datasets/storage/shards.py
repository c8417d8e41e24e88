"""Videos in tar files, as WebDataset lays them out, read in any order."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from src.datasets.decoding.contract import VideoReadError
from src.datasets.storage.names import tails, without_video_extension
from src.datasets.storage.shard_index import ShardIndex, load_index, shards_in
from src.errors import InputError


class VideoShards:
    """A folder of tar files, or one, with members ``<video id><extension>``; others are not read.

    Where each video lies is looked up once, so that order, evaluation and resuming are those of a
    folder. Of a shard that was cut short the videos that are there whole are read.

    An id is a member's name without extension. Where there is none, the folders of a member's name
    need not be named, and last WebDataset's key will do: what is before the first dot.
    """

    def __init__(self, root: Path) -> None:
        """Look whether there are shards.

        Raises:
            InputError: there are none.
        """
        if not root.exists() or not shards_in(root):
            raise InputError(f"videos: there are no tar files in {root}")
        self.root = root

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def fetch(self, video_id: str) -> bytes | None:
        """A video's bytes, or ``None`` where there is none.

        Raises:
            VideoReadError: it is there, but cannot be read.
            InputError: the id names two videos, or the shards cannot be told apart.
        """
        number = self._number_of(video_id)
        if number is None:
            return None
        shard, offset, size = self._index.location(number)
        try:
            with shard.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise VideoReadError(f"{shard}: {error.strerror}") from error
        if len(data) < size:
            raise VideoReadError(f"{shard} has become shorter while it was in use")
        return data

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a video, once each, in order of first appearance.

        Raises:
            InputError: an id names two videos.
        """
        there = set(self._index.ids())
        return [
            video_id
            for video_id in dict.fromkeys(video_ids)
            if video_id not in there and self._number_of(video_id) is None
        ]

    def listed_names(self) -> list[str]:
        """The ids of all videos."""
        return self.video_ids()

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
            found = self._shorter_names.get(name, ())
            if len(found) > 1:
                first, second, *_ = self._ids_of(found)
                raise InputError(
                    f"{self.root}: video id {video_id!r} names both {first} and {second}; give "
                    "ids with their folders"
                )
            if found:
                return found[0]
        return next((self._keys[name] for name in names if self._keys.get(name, -1) >= 0), None)

    @cached_property
    def _shorter_names(self) -> dict[str, list[int]]:
        """Ids without folders -> the videos that they may mean."""
        found: dict[str, list[int]] = {}
        for number, video_id in enumerate(self._index.ids()):
            for tail in tails(video_id):
                found.setdefault(tail, []).append(number)
        return found

    @cached_property
    def _keys(self) -> dict[str, int]:
        """WebDataset's keys that are shorter than ids -> videos; -1 for a key of several."""
        found: dict[str, int] = {}
        for number, video_id in enumerate(self._index.ids()):
            folder, slash, name = video_id.rpartition("/")
            key = folder + slash + name.split(".")[0]
            if key != video_id:
                found[key] = -1 if key in found else number
        return found

    def _ids_of(self, numbers: list[int]) -> list[str]:
        ids = list(self._index.ids())
        return [ids[number] for number in numbers]
