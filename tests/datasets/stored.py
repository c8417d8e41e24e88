"""Small storages of every kind, made on the fly."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from alpro.commands.video_writers import open_writer
from alpro.datasets.storage import VideoStorage, open_videos

KINDS = ("folder", "lmdb", "shards")
IDS = ("a", "A", "x.y", "x.z", "part/d", "-_7", "0001", "50%", "été 中文", "v.mp4")
"""Ids that are not easily kept apart."""


def content_of(video_id: str) -> bytes:
    return f"<{video_id}>".encode() * 40


def store(path: Path, kind: str, ids: tuple[str, ...] = IDS) -> VideoStorage:
    """A storage that holds these ids."""
    with open_writer(path, kind) as writer:
        for video_id in ids:
            writer.put(video_id, content_of(video_id))
    return open_videos(path)


def fetched(storage: VideoStorage, video_id: str) -> bytes | None:
    """A video's bytes, whatever the storage gives."""
    video = storage.fetch(video_id)
    return video.read_bytes() if isinstance(video, Path) else video


def write_tar(path: Path, members: Mapping[str, bytes], *, form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar file as others write it."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked process that does this: 0 where it comes to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
