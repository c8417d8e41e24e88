"""Which kind of storage lies at a path."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS
from alpro.datasets.storage.base import VideoStorage
from alpro.datasets.storage.directory_index import is_folder
from alpro.datasets.storage.file_names import VIDEO_EXTENSIONS, is_hidden, split_extension
from alpro.datasets.storage.folder import VideoFolder
from alpro.datasets.storage.image_folder import ImageFolder
from alpro.datasets.storage.lmdb_videos import VideoLmdb, data_file
from alpro.datasets.storage.shard_index import shards_in
from alpro.datasets.storage.shards import VideoShards

_LEVELS, _FOLDERS = 2, 16
"""How deep, and into how many folders of each, is looked for videos beside a tar file, which may be
the archive that they came in, and beside images, which may be of them."""
KIND_OF_FILE = {".lmdb": "lmdb", ".mdb": "lmdb", ".tar": "shards"}
"""Kinds of storage that may be one file, by its extension."""


def open_videos(path: Path, *, extension: str = ".mp4") -> VideoStorage:
    """The videos at a path, whatever they are stored in.

    Args:
        path: a folder of video files, of an LMDB, of tar shards, or of images (frames in a folder
            for each video, say); or the one file of an LMDB or shard.
        extension: of the files in a folder, that is looked for first.

    Raises:
        InputError: there is nothing of this kind.
    """
    kind = storage_kind(path)
    if kind == "lmdb":
        return VideoLmdb(path)
    if kind == "images":
        return ImageFolder(path)
    return VideoShards(path) if kind == "shards" else VideoFolder(path, extension=extension)


def storage_kind(path: Path) -> str:
    """``folder``, ``lmdb``, ``shards`` or ``images``; where nothing tells, ``folder``."""
    if os.path.isfile(path):
        return KIND_OF_FILE.get(split_extension(path.name)[1], "folder")
    if not os.path.isdir(path):
        return "folder"
    if os.path.isfile(data_file(path)):
        return "lmdb"
    if _holds(VIDEO_EXTENSIONS, path, levels=0):
        return "folder"
    kind = "shards" if shards_in(path) else "images"
    if kind == "images" and not _holds(IMAGE_EXTENSIONS, path, levels=_LEVELS):
        return "folder"
    return "folder" if _holds(VIDEO_EXTENSIONS, path, levels=_LEVELS) else kind


def _holds(extensions: Sequence[str], path: Path | str, *, levels: int) -> bool:
    """Whether a folder or a few of its subfolders hold files with one of these extensions."""
    folders = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if is_folder(entry):
                    folders.append(entry.path)
                elif split_extension(entry.name)[1] in extensions:
                    return True
    except OSError:  # it must not be read
        return False
    if levels == 0:
        return False
    return any(_holds(extensions, each, levels=levels - 1) for each in sorted(folders)[:_FOLDERS])
