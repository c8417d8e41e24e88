"""Images in a folder: frames that were extracted from videos, or still images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS, is_image
from alpro.datasets.storage.base import VideoStorage
from alpro.datasets.storage.directory_index import (
    is_hidden,
    split_extension,
    why_outside,
    without_video_extension,
)
from alpro.errors import InputError
from alpro.installation import has_package


class ImageFolder(VideoStorage):
    """A folder holding ``<video id>/`` with the frames of each video, or one image per id.

    An image is ``<id>.jpg``, ``.jpeg``, ``.png`` or ``.webp``, or an id that carries its extension.
    Ids of files in subfolders include the folder. Reading needs Pillow.
    """

    def __init__(self, root: Path) -> None:
        if not has_package("PIL"):
            raise InputError(
                f"videos: {root} holds images, and Pillow is not installed; `pip install pillow`"
            )
        self.root = root

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
