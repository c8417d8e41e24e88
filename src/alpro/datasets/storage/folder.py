"""Videos as files in a folder; and images: frames extracted from videos, or still images."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS, is_image
from alpro.datasets.storage.base import AmbiguousIdError, VideoStorage
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
    without_video_extension,
)
from alpro.errors import InputError
from alpro.installation import has_package

logger = logging.getLogger(__name__)

Place = tuple[str, str]
"""A file's folder, from the root ("" is the root itself), and its name."""


class VideoFolder(VideoStorage):
    """A folder holding one file per video, named ``<video id><extension>``.

    A file with the dataset's own extension is preferred, then one with any other common video
    extension, then one with an unknown extension if only one file has that name. Extensions may be
    in capitals. An id may include its extension.

    Ids may name subfolders, but need not: a file that is not at its id is searched in the folder
    that is named as the id is up to its first dot, as HD-VILA-100M has clips (``x/x.3.mp4``), then
    in all subfolders. An id that leads out of the folder has no video, see `why_outside`.
    """

    def __init__(self, root: Path, *, extension: str = ".mp4") -> None:
        if not is_open_folder(root):
            raise InputError(
                f"videos: {folder_trouble(root)}; the dataset's `img` must name the folder that "
                f"holds its videos as <video id>{extension}"
            )
        self.root = root
        self.extension = extension
        self._listings: dict[str, DirectoryIndex] = {}  # by folder from the root; "" is the root
        # Name without extension -> the folders with such a file, once all are listed.
        self._folders: dict[str, list[str]] | None = None
        self._walked: list[str] = []  # all folders, each once: ids can name one in several ways

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_listings": {}, "_folders": None, "_walked": []}

    def fetch(self, video_id: str) -> Path | None:
        if why_outside(video_id):
            return None
        # Try the usual names first, without listing the folders.
        names = [video_id + self.extension]
        for folder in _folder_of_clips(video_id):
            bare = [video_id] * (split_extension(video_id)[1] in VIDEO_EXTENSIONS)
            names += [os.path.join(folder, name) for name in (*names, *bare)]
        for name in names:
            if os.path.isfile(path := os.path.join(self.root, name)):
                return Path(path)
        place = self._place(video_id)
        if place is None:
            return None
        path = os.path.join(self.root, *place)
        return Path(path) if os.path.isfile(path) else None

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        absent = [name for name in dict.fromkeys(video_ids) if self._own_place(name) is None]
        if absent and self._folders is None and self._listing("").folders:
            logger.info("searching the subfolders of %s for %d ids", self.root, len(absent))
        return [name for name in absent if self._place_elsewhere(name) is None]

    def listed_names(self) -> list[str]:
        return [os.path.join(*place) for place in self._places(self._listings)]

    def unlisted(self) -> str | None:
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
        # A unique name without extension is an id, any other file needs more of its path.
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
            with suppress(AmbiguousIdError):  # it names another file too
                if self._place(video_id) == place:
                    return video_id
        return os.path.join(folder, name)

    def _place(self, video_id: str) -> Place | None:
        return self._own_place(video_id) or self._place_elsewhere(video_id)

    def _own_place(self, video_id: str) -> Place | None:
        """Place of a file in the folder that its id names, or in that of its clips."""
        folder, name = os.path.split(video_id)
        if why_outside(video_id):
            return None
        # Listing a folder once is much faster on network drives than a query per video.
        for each in (folder, *_folder_of_clips(video_id)):
            match = self._listing(each).find(name, extension=self.extension)
            if match is not None:
                return each, match.name
        return None

    def _place_elsewhere(self, video_id: str) -> Place | None:
        """Place of a file in another folder, below one of the name that its id names."""
        folder, name = os.path.split(video_id)
        if why_outside(video_id):
            return None
        # Collect the matching files of all folders.
        self._walk()
        folders = self._folders or {}
        matches: list[tuple[Match, str]] = []
        for each in {*folders.get(name, ()), *folders.get(split_extension(name)[0], ())}:
            match = self._listings[each].find(name, extension=self.extension)
            if match is not None and f"/{each}".endswith(f"/{folder}" if folder else ""):
                matches.append((match, each))
        matches.sort()
        if not matches:
            return None
        # Take the best one, unless several are equally good.
        first_match = matches[0][0]
        best = [(each, match.name) for match, each in matches if match.rank == first_match.rank]
        if len(best) == 1:
            return best[0]
        if not first_match.has_known_extension:
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
        """List all folders but hidden ones, once."""
        if self._folders is not None:
            return
        self._folders = {}
        pending = [""]
        seen = set()
        while pending:
            # Skip folders that were visited, as by a link to a parent folder.
            folder = pending.pop()
            try:
                status = os.stat(os.path.join(self.root, folder))
            except OSError:  # deleted meanwhile, or its parent may only be listed
                self._listing(folder)
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            # List it, and go on with its subfolders.
            self._walked.append(folder)
            listing = self._listing(folder)
            pending += [
                os.path.join(folder, name) for name in reversed(listing.folders) if name[0] != "."
            ]
            if folder:
                for stem in listing.files:
                    self._folders.setdefault(stem, []).append(folder)


def _folder_of_clips(video_id: str) -> tuple[str, ...]:
    """The folder of the clips of one video, ``x`` of ``x.3.mp4``; none without a dot."""
    first, dot, _ = video_id.partition(".")
    return (first,) if dot and first and "/" not in video_id else ()


class ImageFolder(VideoStorage):
    """A folder holding ``<video id>/`` with the frames of each video, or one image per id.

    An image is ``<id>.jpg``, ``.jpeg``, ``.png`` or ``.webp``, or an id that carries its extension.
    Ids of files in subfolders include the folder. Reading needs Pillow.

    Attributes:
        frame_counts: video id -> frames to use of its folder, where annotations state that.
    """

    def __init__(self, root: Path) -> None:
        if not has_package("PIL"):
            raise InputError(
                f"videos: {root} holds images, and Pillow is not installed; `pip install pillow`"
            )
        self.root = root
        self.frame_counts: dict[str, int] = {}

    @property
    def described(self) -> str:
        return f"the folder of images {self.root}"

    def fetch(self, video_id: str) -> Path | None:
        """The folder of a video's frames, or an image; None if there is neither."""
        if why_outside(video_id):
            return None
        paths = (Path(self.root, name) for name in _names_of(video_id))
        return next(
            (path for path in paths if os.path.isdir(path) or (is_image(path) and path.is_file())),
            None,
        )

    def missing(self, video_ids: Iterable[str]) -> list[str]:
        # Listing a folder once is much faster on network drives than a query per id.
        @cache
        def listed(folder: str) -> frozenset[str]:
            try:
                return frozenset(os.listdir(os.path.join(self.root, folder)))
            except (OSError, ValueError):  # no such folder
                return frozenset()

        def is_there(video_id: str) -> bool:
            places = map(os.path.split, _names_of(video_id))
            return not why_outside(video_id) and any(name in listed(at) for at, name in places)

        return [video_id for video_id in dict.fromkeys(video_ids) if not is_there(video_id)]

    def listed_names(self) -> list[str]:
        """The names in the folder itself: there may be millions of frames below it."""
        names = [name for name in os.listdir(self.root) if not is_hidden(name)]
        return [split_extension(name)[0] if is_image(Path(name)) else name for name in names]

    def video_ids(self) -> list[str]:
        """The ids of all folders below that hold images, and of images beside them, sorted."""
        ids = []
        seen = set()
        for folder, subfolders, names in os.walk(self.root, followlinks=True):
            # Do not follow a link to a parent folder.
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            # In the root each image is an item; below it a folder is.
            subfolders[:] = [name for name in subfolders if not is_hidden(name)]
            images = [name for name in names if is_image(Path(name)) and not is_hidden(name)]
            if folder == str(self.root):
                stems = [split_extension(name)[0] for name in images]
                ids += stems if len({*stems}) == len(stems) else images
            elif images:
                ids.append(os.path.relpath(folder, self.root))
        return sorted(ids)


def _names_of(video_id: str) -> Iterator[str]:
    """Yield possible names of an id's folder or image."""
    yield video_id
    yield without_video_extension(video_id)
    for extension in IMAGE_EXTENSIONS:
        yield video_id + extension
        yield video_id + extension.upper()
