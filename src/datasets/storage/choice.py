"""Which kind of storage lies at a path."""

from __future__ import annotations

import os
from pathlib import Path

from src.datasets.storage.contract import VideoStorage
from src.datasets.storage.folder import VideoFolder
from src.datasets.storage.lmdb_videos import VideoLmdb, data_file
from src.datasets.storage.names import VIDEO_EXTENSIONS, is_hidden, split_extension
from src.datasets.storage.shards import VideoShards

KIND_OF_FILE = {".lmdb": "lmdb", ".mdb": "lmdb", ".tar": "shards"}
"""Kinds of storage that may be one file, by its extension."""


def open_videos(path: Path, *, extension: str = ".mp4") -> VideoStorage:
    """The videos at a path, whatever they are stored in.

    Args:
        path: a folder of video files, of an LMDB, or of tar shards; or the one file of the latter.
        extension: of the files in a folder, that is looked for first.

    Raises:
        InputError: there is nothing of this kind.
    """
    kind = storage_kind(path)
    if kind == "lmdb":
        return VideoLmdb(path)
    return VideoShards(path) if kind == "shards" else VideoFolder(path, extension=extension)


def storage_kind(path: Path) -> str:
    """``folder``, ``lmdb`` or ``shards``; where nothing tells, ``folder``."""
    if path.is_file():
        return KIND_OF_FILE.get(split_extension(path.name)[1], "folder")
    if not path.is_dir():
        return "folder"
    if data_file(path).is_file():
        return "lmdb"
    has_shards = False
    with os.scandir(path) as entries:
        for entry in entries:
            extension = split_extension(entry.name)[1]
            if is_hidden(entry.name) or not entry.is_file():
                continue
            if extension in VIDEO_EXTENSIONS:
                return "folder"
            has_shards = has_shards or extension == ".tar"
    return "shards" if has_shards else "folder"
