"""Videos as files in a folder."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alpro.datasets.storage.base import AmbiguousIdError
from alpro.datasets.storage.directory_index import (
    VIDEO_EXTENSIONS,
    DirectoryIndex,
    Match,
    folder_trouble,
    is_hidden,
    is_open_folder,
    may_be_video,
    split_extension,
    why_outside,
)
from alpro.errors import InputError

logger = logging.getLogger(__name__)

Place = tuple[str, str]
"""A file's folder, from the root ("" is the root itself), and its name."""


class VideoFolder:
    """A folder holding one file per video, named ``<video id><extension>``.

    A file with the dataset's own extension is preferred; where it is absent, any other common video
    extension will do, and last an unknown one if only one file has that name. Extensions may be in
    capitals. An id that already carries one names its file itself.

    Ids may name subfolders, and need not: a file that is not where its id says is looked for in all
    subfolders. An id that leads out of the folder has no video, see `why_outside`.
    """

    def __init__(self, root: Path, *, extension: str = ".mp4") -> None:
        if not is_open_folder(root):
            raise InputError(
                f"videos: {folder_trouble(root)}; the dataset's `img` must name the folder that "
                f"holds its videos as <video id>{extension}"
            )
        self.root = root
        self.extension = extension
        self._listings: dict[str, DirectoryIndex] = {}
        """Of folders, named from the root; "" is the root itself."""
        self._folders: dict[str, list[str]] | None = None
        """Name without extension -> the folders that have such a file, once all are listed."""
        self._walked: list[str] = []
        """All folders, each once: ids can name one in several ways."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_listings": {}, "_folders": None, "_walked": []}

    @property
    def described(self) -> str:
        """The folder, for messages."""
        return str(self.root)

    def fetch(self, video_id: str) -> Path | None:
        """A video's file, or ``None`` where the folder has none.

        Raises:
            AmbiguousIdError: two subfolders have a file of this name.
        """
        if why_outside(video_id):
            return None
        path = os.path.join(self.root, video_id + self.extension)
        if os.path.isfile(path):
            return Path(path)
        place = self._place(video_id)
        if place is None:
            return None
        path = os.path.join(self.root, *place)
        return Path(path) if os.path.isfile(path) else None

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        """The ids without a file, once each, in order of first appearance.

        Raises:
            AmbiguousIdError: two subfolders have a file of one of these names.
        """
        absent = [name for name in dict.fromkeys(video_ids) if self._own_place(name) is None]
        if absent and self._folders is None and self._listing("").folders:
            logger.info("looking for %d ids in the subfolders of %s", len(absent), self.root)
        return [name for name in absent if self._place_elsewhere(name) is None]

    def listed_names(self) -> list[str]:
        """The files' names, from ``root``, in all folders that ids have been looked for in."""
        return [os.path.join(*place) for place in self._places(self._listings)]

    def unlisted(self) -> str | None:
        """A folder that cannot be listed, of those that ids have been looked for in."""
        for folder, listing in self._listings.items():
            if listing.trouble:
                return f"{os.path.join(self.root, folder)} cannot be listed: {listing.trouble}"
        return None

    def video_files(self) -> list[str]:
        """Paths of all videos from ``root``, subfolders included, sorted."""
        self._walk()
        places = self._places(self._walked)
        return sorted(os.path.join(*place) for place in places if self._is_video(place[1]))

    def video_ids(self) -> list[str]:
        """The ids of all videos, sorted: names without extension, folders only where needed."""
        self._walk()
        places = [place for place in self._places(self._walked) if self._is_video(place[1])]
        count = Counter(split_extension(name)[0] for _, name in places)
        ids = []
        for place in places:
            stem = split_extension(place[1])[0]
            is_clear = count[stem] == 1 and split_extension(stem)[1] not in VIDEO_EXTENSIONS
            ids.append(stem if is_clear else self._own_id(place))
        return sorted(ids)

    def _places(self, folders: Iterable[str]) -> Iterator[Place]:
        for folder in folders:
            yield from ((folder, name) for name in self._listings[folder].names())

    def _is_video(self, name: str) -> bool:
        extension = split_extension(name)[1]
        known = extension in VIDEO_EXTENSIONS or extension == self.extension.lower()
        return not is_hidden(name) and (known or (extension != "" and may_be_video(name)))

    def _own_id(self, place: Place) -> str:
        """The shortest id that names this file and no other."""
        folder, name = place
        stem = split_extension(name)[0]
        for video_id in (stem, os.path.join(folder, stem), name):
            try:
                found = self._place(video_id)
            except AmbiguousIdError:  # it names another file too
                continue
            if found == place:
                return video_id
        return os.path.join(folder, name)

    def _place(self, video_id: str) -> Place | None:
        """Where a video's file lies."""
        return self._own_place(video_id) or self._place_elsewhere(video_id)

    def _own_place(self, video_id: str) -> Place | None:
        """Where a file lies that is in the folder its id names.

        A folder is listed once, which on network drives is much faster than asking per video.
        """
        folder, name = os.path.split(video_id)
        if why_outside(video_id):
            return None
        found = self._listing(folder).find(name, extension=self.extension)
        return None if found is None else (folder, found.name)

    def _place_elsewhere(self, video_id: str) -> Place | None:
        """Where a file lies that is in another folder, below one of the name that its id names."""
        folder, name = os.path.split(video_id)
        if why_outside(video_id):
            return None
        self._walk()
        folders = self._folders or {}
        having = {*folders.get(name, ()), *folders.get(split_extension(name)[0], ())}
        found: list[tuple[Match, str]] = []
        for each in having:
            match = self._listings[each].find(name, extension=self.extension)
            if match is not None and f"/{each}".endswith(f"/{folder}" if folder else ""):
                found.append((match, each))
        found.sort()
        if not found:
            return None
        best = [(each, match.name) for match, each in found if match.rank == found[0][0].rank]
        if len(best) == 1:
            return best[0]
        if not found[0][0].has_known_extension:
            return None
        first, second, *_ = (os.path.join(*place) for place in best)
        raise AmbiguousIdError(
            f"{self.root}: video id {video_id!r} names both {first} and "
            f"{second}; give ids with their folders, or remove one of the files"
        )

    def _listing(self, folder: str) -> DirectoryIndex:
        if folder not in self._listings:
            self._listings[folder] = DirectoryIndex(os.path.join(self.root, folder))
        return self._listings[folder]

    def _walk(self) -> None:
        """List all folders, once; hidden ones are left out."""
        if self._folders is not None:
            return
        self._folders = {}
        pending = [""]
        seen = set()
        while pending:
            folder = pending.pop()
            try:
                status = os.stat(os.path.join(self.root, folder))
            except OSError:  # it has gone, or its parent may be listed only
                self._listing(folder)
                continue
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder around it
                continue
            seen.add((status.st_dev, status.st_ino))
            self._walked.append(folder)
            listing = self._listing(folder)
            pending += [
                os.path.join(folder, name) for name in reversed(listing.folders) if name[0] != "."
            ]
            if folder:
                for stem in listing.files:
                    self._folders.setdefault(stem, []).append(folder)
