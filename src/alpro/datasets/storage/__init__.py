"""Videos and images by their ids, from a folder, an LMDB or tar shards."""

from alpro.datasets.storage.base import AmbiguousIdError, VideoStorage
from alpro.datasets.storage.directory_index import (
    VIDEO_EXTENSIONS,
    folder_trouble,
    is_open_folder,
    why_outside,
)
from alpro.datasets.storage.factory import hint_of_missing, open_videos, storage_kind
from alpro.datasets.storage.folder import ImageFolder, VideoFolder
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.datasets.storage.shards import VideoShards

__all__ = [
    "VIDEO_EXTENSIONS",
    "AmbiguousIdError",
    "ImageFolder",
    "VideoFolder",
    "VideoLmdb",
    "VideoShards",
    "VideoStorage",
    "folder_trouble",
    "hint_of_missing",
    "is_open_folder",
    "open_videos",
    "storage_kind",
    "why_outside",
]
