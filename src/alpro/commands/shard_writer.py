"""Writing videos into tar shards in WebDataset's layout."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from alpro.datasets.storage.shards import shards_in
from alpro.datasets.storage.tar_reader import Member, id_of_member, member_name, read_members
from alpro.errors import InputError
from alpro.training.atomic_io import full_disk_ends_run, temporary_of

SHARD_BYTES = 10**9
SHARD_VIDEOS = 10_000
_COPIED_BYTES = 1 << 20  # at a time
_END_MARK = bytes(2 * tarfile.BLOCKSIZE)


class ShardWriter:
    """Writes ``000000.tar``, ``000001.tar`` and so on; a shard gets its name when it is full.

    The shard that is being written has a hidden name. After a kill the next writer resumes it: the
    first block of a member is written last, when the rest of it is on the disk, and until then the
    file reads as if it ended before it.
    """

    can_replace = False

    def __init__(self, root: Path, *, extension: str, shard_bytes: int, shard_videos: int) -> None:
        """Index the shards that exist.

        Raises:
            InputError: another process writes there, or a file is not a tar file.
        """
        self.root = root
        self._extension = extension
        self._shard_bytes = shard_bytes
        self._shard_videos = shard_videos
        self._ids: set[str] = set()
        self._shard: _OpenShard | None = None
        # Ids of finished shards, then of the one that was being written.
        for shard in shards_in(root):
            self._ids.update(_ids_of(read_members(shard).members))
        for unfinished in sorted(root.glob(".*.tar.tmp")):
            self._resume(unfinished)

    def put(self, video_id: str, data: bytes | Path) -> None:
        """Add a video with a new id."""
        if self._shard is None:
            self._shard = _OpenShard(temporary_of(self.root / f"{self._next_number():06d}.tar"))
        self._shard.add(member_name(video_id, extension=self._extension), data)
        self._ids.add(video_id)
        if self._shard.end >= self._shard_bytes or self._shard.num_videos >= self._shard_videos:
            self._finish_shard()

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._ids

    def flush(self) -> None:
        """Do nothing: each video is on the disk already."""

    def close(self, *, complete: bool) -> None:
        """Finish the last shard, or leave it unfinished for a later resume."""
        if self._shard is None:
            return
        if complete and self._shard.num_videos:
            self._finish_shard()
        else:
            self._shard.close()
            self._shard = None

    def _resume(self, unfinished: Path) -> None:
        shard = _OpenShard(unfinished)
        self._ids.update(shard.ids)
        if self._shard is not None:  # of a folder copied together from two
            self._finish_shard()
        self._shard = shard

    def _next_number(self) -> int:
        names = (path.name for path in self.root.iterdir())
        matches = [re.fullmatch(r"\.?(\d+)\.tar(\.tmp)?", name) for name in names]
        return 1 + max((int(match[1]) for match in matches if match), default=-1)

    def _finish_shard(self) -> None:
        assert self._shard is not None
        self._shard.finish()
        self._shard = None


class _OpenShard:
    """A shard that is being written."""

    def __init__(self, path: Path) -> None:
        """Open it, and truncate what a killed process left after the last complete member.

        Raises:
            InputError: another process writes to it.
        """
        self.path = path
        # The lock is released with the file, also if the process is killed.
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._file: BinaryIO = os.fdopen(number, "rb+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(
                f"{path.parent}: another process writes shards there; wait until it ends, or "
                "choose another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        try:
            members, self.end, _ = read_members(path)
        except InputError:  # not even its first block is complete
            members, self.end = [], 0
        self.ids = _ids_of(members)
        self.num_videos = len(members)
        self._file.truncate(self.end)

    def add(self, name: str, data: bytes | Path) -> None:
        """Write a member atomically."""
        # The header is written last, so that a kill leaves the file as it was.
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        header = _header(name, size)
        start = self.end + len(header)
        end = start + _whole_blocks(size)
        with full_disk_ends_run(self.path, num_bytes=size):
            self._file.seek(start)
            with io.BytesIO(data) if isinstance(data, bytes) else data.open("rb") as source:
                shutil.copyfileobj(source, self._file, _COPIED_BYTES)
            if self._file.tell() != start + size:
                raise OSError(errno.EIO, f"{name} changed while it was read")
            self._file.truncate(end)
            self._write_header(header)
        self.end = end
        self.num_videos += 1

    def _write_header(self, header: bytes) -> None:
        """Write the first block last: one of zeros ends a tar file."""
        for part in (slice(tarfile.BLOCKSIZE, None), slice(tarfile.BLOCKSIZE)):
            self._file.seek(self.end + part.indices(len(header))[0])
            self._file.write(header[part])
            self._file.flush()
            if part.stop is None:
                os.fdatasync(self._file.fileno())

    def finish(self) -> None:
        """Give the shard its name."""
        with full_disk_ends_run(self.path):
            self._file.seek(self.end)
            self._file.truncate()
            self._file.write(_END_MARK)
            self._file.flush()
            os.fsync(self._file.fileno())
        self.path.replace(self.path.with_name(self.path.name[1:].removesuffix(".tmp")))
        self.close()

    def close(self) -> None:
        """Close the file, which releases its lock."""
        self._file.close()


def _header(name: str, size: int) -> bytes:
    """The blocks before a member's content; the same at any time and for any user."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _whole_blocks(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _ids_of(members: Sequence[Member]) -> list[str]:
    ids = (id_of_member(member.name) for member in members)
    return [video_id for video_id in ids if video_id is not None]
