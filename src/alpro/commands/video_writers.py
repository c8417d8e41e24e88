"""Writing videos into a folder, an LMDB or tar shards, one by one and resumable.

Each video is stored atomically, whenever the process is killed, and a writer opened again on the
same path resumes with the videos that it holds. Leaving the ``with`` block without an exception
completes the storage. An LMDB may lose the last ``PENDING_BYTES`` when it is killed; ask ``in``.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from alpro.commands.shard_writer import SHARD_BYTES, SHARD_VIDEOS, ShardWriter
from alpro.datasets.storage import VideoFolder, open_videos, storage_kind, why_outside
from alpro.datasets.storage.directory_index import VIDEO_EXTENSIONS, is_hidden, split_extension
from alpro.datasets.storage.lmdb_videos import (
    DATA_FILE,
    MAX_KEY_BYTES,
    check_lmdb,
    lmdb_key,
    lmdb_module,
)
from alpro.errors import InputError, RunError
from alpro.training.atomic_io import free_bytes, full_disk_ends_run, write_atomically

KINDS = ("folder", "lmdb", "shards")
PENDING_BYTES = 64 << 20  # collected by an LMDB's writer before it commits them
FIRST_MAP_BYTES = 1 << 30  # of an LMDB; it grows as needed
MAX_LMDB_VALUE_BYTES = (1 << 32) - 1


class KindWriter(Protocol):
    """Interface of the writers of each kind of storage."""

    root: Path
    can_replace: bool
    """Whether the video of an id can be replaced."""

    def put(self, video_id: str, data: bytes | Path) -> None:
        """Add a video, or replace the one with its id."""
        ...

    def flush(self) -> None:
        """Write pending videos to the disk."""
        ...

    def __contains__(self, video_id: object) -> bool: ...

    def close(self, *, complete: bool) -> None:
        """End writing; ``complete`` where no more will come."""
        ...


class VideoWriter:
    """A storage that videos are put into; a context manager."""

    def __init__(self, writer: KindWriter) -> None:
        self._writer = writer

    @property
    def root(self) -> Path:
        """The folder that is written to."""
        return self._writer.root

    def put(self, video_id: str, data: bytes | Path) -> None:
        """Add a video: a file's bytes, or the file they are read from.

        Raises:
            InputError: the id exists, or the storage cannot hold such an id or size.
            OSError: the file cannot be read.
            RunError: the disk is full.
        """
        _check_id(video_id)
        if video_id in self:
            raise InputError(
                f"{self.root}: video {video_id!r} exists already; each id is written once"
            )
        self._writer.put(video_id, data)

    @property
    def can_replace(self) -> bool:
        """Whether the video of an id can be replaced."""
        return self._writer.can_replace

    def replace(self, video_id: str, data: bytes | Path) -> None:
        """Replace a video and flush it to the disk.

        Raises:
            InputError: the storage cannot hold such a size.
            OSError: the file cannot be read.
            RunError: the disk is full.
        """
        assert self.can_replace
        self._writer.put(video_id, data)
        self._writer.flush()

    def __contains__(self, video_id: object) -> bool:
        """Whether the storage holds this video."""
        return video_id in self._writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close(complete=kind is None)


def open_writer(
    path: Path,
    kind: str,
    *,
    extension: str = ".mp4",
    shard_bytes: int = SHARD_BYTES,
    shard_videos: int = SHARD_VIDEOS,
) -> VideoWriter:
    """Create a storage, or resume one.

    Args:
        path: folder of the files, of the LMDB or of the shards; created if missing.
        kind: one of ``KINDS``.
        extension: of the files' and the shards' members' names; keys of an LMDB have none.
        shard_bytes: a shard is full when it has grown to this size.
        shard_videos: or when it has so many videos.

    Raises:
        InputError: the path holds something else, or another process writes there.
    """
    if kind not in KINDS:
        raise InputError(f"kind {kind!r}: videos are written to one of {', '.join(KINDS)}")
    if kind == "shards" and extension not in VIDEO_EXTENSIONS:  # readers would pass them over
        raise InputError(f"extension {extension!r}: in shards it must be one of videos, as in .mp4")
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; choose a folder for the {kind}")
    # An existing storage must be of this kind, or the folder empty of videos.
    path.mkdir(parents=True, exist_ok=True)
    present = storage_kind(path)
    present = "folder" if present == "images" else present  # videos may be written beside them
    if present != kind and (present != "folder" or _holds_files(path)):
        raise InputError(f"{path} holds other files; choose an empty folder for the {kind}")
    writer: KindWriter
    if kind == "folder":
        writer = FolderWriter(path, extension=extension)
    elif kind == "lmdb":
        writer = LmdbWriter(path)
    else:
        writer = ShardWriter(
            path, extension=extension, shard_bytes=shard_bytes, shard_videos=shard_videos
        )
    return VideoWriter(writer)


class FolderWriter:
    """Writes files, each under a temporary name first."""

    can_replace = True

    def __init__(self, root: Path, *, extension: str) -> None:
        self.root = root
        self._extension = extension

    def put(self, video_id: str, data: bytes | Path) -> None:
        """Add a video, or replace the one with its id."""
        path = self._path(video_id)
        write = _bytes_writer(data) if isinstance(data, bytes) else _file_copier(data)
        try:
            write_atomically(path, write)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise InputError(f"{self.root}: a file cannot be named {path.name}") from error
            raise

    def __contains__(self, video_id: object) -> bool:
        return os.path.isfile(self._path(str(video_id)))

    def flush(self) -> None:
        """Do nothing: each video is on the disk already."""

    def close(self, *, complete: bool) -> None:
        """Do nothing: each video is on the disk already."""

    def _path(self, video_id: str) -> Path:
        return self.root / f"{video_id}{self._extension}"


class LmdbWriter:
    """Writes into an LMDB in transactions of ``PENDING_BYTES``."""

    can_replace = True

    def __init__(self, root: Path, *, first_map_bytes: int = FIRST_MAP_BYTES) -> None:
        lmdb = lmdb_module()
        self.root = root
        self._pending: dict[bytes, bytes] = {}
        self._pending_bytes = 0
        was_begun = os.path.isfile(root / DATA_FILE)
        try:
            self._environment = lmdb.open(str(root), map_size=first_map_bytes, readahead=False)
        except lmdb.Error as error:
            raise InputError(f"{root}: cannot be written as an LMDB: {error}") from error
        try:
            if was_begun:
                check_lmdb(root / DATA_FILE)
        except BaseException:
            self._environment.close()
            raise

    def put(self, video_id: str, data: bytes | Path) -> None:
        """Add a video, or replace the one with its id."""
        key = lmdb_key(video_id)
        if len(key) > MAX_KEY_BYTES:
            raise InputError(
                f"{self.root}: video id {video_id!r} has {len(key)} bytes; an LMDB takes "
                f"{MAX_KEY_BYTES} at most: use shorter ids, or a folder or shards"
            )
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        if size > MAX_LMDB_VALUE_BYTES:
            raise InputError(
                f"{self.root}: video {video_id!r} has {size:,} bytes; an LMDB takes 4 GiB at "
                "most: use a folder or shards"
            )
        self._pending[key] = data if isinstance(data, bytes) else data.read_bytes()
        self._pending_bytes += size
        if self._pending_bytes >= PENDING_BYTES:
            self.flush()

    def __contains__(self, video_id: object) -> bool:
        key = lmdb_key(str(video_id))
        if key in self._pending:
            return True
        if not 0 < len(key) <= MAX_KEY_BYTES:
            return False
        with self._environment.begin(buffers=True) as transaction:
            return transaction.get(key) is not None

    def close(self, *, complete: bool) -> None:  # noqa: ARG002 - it is always complete
        """Write pending videos and close the environment."""
        try:
            self.flush()
        finally:
            self._environment.close()

    def flush(self) -> None:
        """Write pending videos in one transaction, again with a larger map if it is full."""
        lmdb = lmdb_module()
        with _lmdb_errors_end_run(self.root, num_bytes=self._pending_bytes):
            while self._pending:
                try:
                    with self._environment.begin(write=True) as transaction:
                        for key, value in self._pending.items():
                            transaction.put(key, value)
                    self._pending.clear()
                except lmdb.MapFullError:
                    present = self._environment.info()["map_size"]
                    self._environment.set_mapsize(2 * present + self._pending_bytes)
                except lmdb.MapResizedError:  # by another process
                    self._environment.set_mapsize(0)
        self._pending_bytes = 0


@contextmanager
def _lmdb_errors_end_run(root: Path, *, num_bytes: int) -> Iterator[None]:
    """Context in which an LMDB is written.

    Raises:
        RunError: if that fails, as a rule because the disk is full.
    """
    lmdb = lmdb_module()
    with full_disk_ends_run(root / DATA_FILE, num_bytes=num_bytes):
        try:
            yield
        except lmdb.Error as error:  # a full disk also gives "Input/output error"
            if isinstance(error, lmdb.DiskError) or free_bytes(root / DATA_FILE) < num_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise RunError(f"{root}: cannot be written: {error}") from error


def _check_id(video_id: str) -> None:
    if why_outside(video_id) or not {"", "."}.isdisjoint(video_id.split("/")):
        raise InputError(f"video id {video_id!r} cannot be stored: it is not a file name")


def holds_videos(path: Path) -> bool:
    """Whether a path holds videos, in a storage of any kind."""
    if not path.is_dir():
        return False
    storage = open_videos(path)
    if isinstance(storage, VideoFolder):
        return any(split_extension(name)[1] in VIDEO_EXTENSIONS for name in storage.video_files())
    return bool(storage.video_ids())


def _holds_files(path: Path) -> bool:
    """Whether a folder holds videos, or folders that may."""
    return any(
        not is_hidden(entry.name)
        and (entry.is_dir() or split_extension(entry.name)[1] in VIDEO_EXTENSIONS)
        for entry in path.iterdir()
    )


def _bytes_writer(data: bytes) -> Callable[[Path], object]:
    return lambda temporary: temporary.write_bytes(data)


def _file_copier(source: Path) -> Callable[[Path], object]:
    return lambda temporary: shutil.copyfile(source, temporary)
