"""Contract of video storages."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from alpro.datasets.decoding.base import Video
from alpro.errors import InputError


class AmbiguousIdError(InputError):
    """An id that names two videos; the message names both."""


class VideoStorage(Protocol):
    """Videos by their ids.

    Files are opened on first use, once in each process: a storage can be sent to worker processes,
    forked or spawned, at any time, and is then small.
    """

    root: Path  # the folder or file that holds them

    @property
    def described(self) -> str:
        """The root for messages, with the kind of storage where it is not a folder."""
        return str(self.root)

    def fetch(self, video_id: str) -> Video | None:
        """A video's file, or its bytes; None if there is none.

        Raises:
            VideoReadError: it is there, but cannot be read.
            AmbiguousIdError: the id names two videos.
            InputError: the storage is damaged, or has changed.
        """

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a video, once each, in order of first appearance.

        Raises:
            AmbiguousIdError: an id names two videos.
            InputError: the storage is damaged.
        """

    def listed_names(self) -> list[str]:
        """Return the names seen in the search for ids, for `hint_of_missing`."""
        return self.video_ids()

    def unlisted(self) -> str | None:
        """Return what cannot be listed but may hold videos; None where that is an error."""
        return None

    def video_ids(self) -> list[str]:
        """The ids of all videos, sorted."""
