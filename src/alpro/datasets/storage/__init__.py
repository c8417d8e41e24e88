"""Videos and images by their ids, from a folder, an LMDB or tar shards."""

from alpro.datasets.storage.base import VideoStorage
from alpro.datasets.storage.directory_index import why_outside
from alpro.datasets.storage.factory import hint_of_missing, open_videos, storage_kind
from alpro.datasets.storage.folder import ImageFolder, VideoFolder

__all__ = [
    "ImageFolder",
    "VideoFolder",
    "VideoStorage",
    "hint_of_missing",
    "open_videos",
    "storage_kind",
    "why_outside",
]
