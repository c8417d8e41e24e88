"""Videos by their ids, from a folder, an LMDB or tar shards."""

from src.datasets.storage.choice import open_videos, storage_kind
from src.datasets.storage.contract import AmbiguousIdError, VideoStorage
from src.datasets.storage.folder import VideoFolder
from src.datasets.storage.hints import hint_of_missing
from src.datasets.storage.lmdb_videos import VideoLmdb
from src.datasets.storage.names import VIDEO_EXTENSIONS, folder_trouble, is_open_folder, why_outside
from src.datasets.storage.shards import VideoShards

__all__ = [
    "VIDEO_EXTENSIONS",
    "AmbiguousIdError",
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
