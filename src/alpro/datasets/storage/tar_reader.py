"""What lies where in a tar file, and the names that video ids have there.

WebDataset takes what is before the first dot of a member's base name for the key of its sample. So
dots of an id's last part are written as ``%2E`` (and ``%`` as ``%25``), and are dots again when
read; names that others wrote with dots are read as they are.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alpro.datasets.decoding.formats import described_content
from alpro.datasets.storage.directory_index import (
    VIDEO_EXTENSIONS,
    is_hidden,
    split_extension,
    why_outside,
)
from alpro.errors import InputError

MAX_HEADER_BYTES = 1 << 15
"""Of all headers of a member, and of what is read of one at once; a name takes a few thousand."""
_MANY_DIGITS = re.compile(rb"\d{256}")
DAMAGES = (tarfile.TarError, ValueError, OverflowError, RecursionError)
"""Exceptions that `tarfile` raises for headers that hold anything."""


class Member(NamedTuple):
    """A file in a tar file; all in bytes."""

    name: str
    start: int  # of its headers
    offset: int  # of its content: before its headers where it is another name of an earlier member
    size: int


class TarContent(NamedTuple):
    """What a tar file holds."""

    members: list[Member]
    end: int
    """Where the next member would begin, in bytes."""
    trouble: str | None
    """What is wrong with the file, if it has fewer members than it should."""


def member_name(video_id: str, *, extension: str) -> str:
    """The name under which a video is written."""
    folder, slash, name = video_id.rpartition("/")
    return folder + slash + name.replace("%", "%25").replace(".", "%2E") + extension


def id_of_member(name: str) -> str | None:
    """The video id that a member's name stands for; ``None`` if it is no video."""
    stem, extension = split_extension(re.sub(r"^(/|\.{1,2}/)+", "", name))
    folder, slash, last = stem.rpartition("/")
    if extension not in VIDEO_EXTENSIONS or is_hidden(last) or why_outside(stem):
        return None
    return folder + slash + last.replace("%2E", ".").replace("%25", "%")


class TarReader(io.BufferedReader):
    """A file of which `tarfile` reads headers, which may claim to be as large as they like."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a part of a header."""
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = super().read(size)
        if _MANY_DIGITS.search(data):  # in which `tarfile` searches for the square of their number
            raise tarfile.ReadError("a header of digits")
        return data

    def content(self, offset: int, size: int) -> bytes:
        """Bytes of a member; fewer where the file has ended before."""
        left = os.fstat(self.fileno()).st_size - offset
        self.seek(offset)
        return super().read(max(0, min(size, left)))

    def entries(self, *, start: int = 0) -> Iterator[tuple[tarfile.TarInfo, int]]:
        """Members from a place on, each with the place where the next one begins."""
        self.seek(start)
        tar = tarfile.TarFile(fileobj=self, encoding="utf-8", errors="surrogateescape")
        end = start
        while (entry := tar.next()) is not None:
            if tar.offset <= end or entry.size < 0:  # else it would be gone through for ever
                raise tarfile.ReadError(f"a member of {entry.size} bytes")
            end = tar.offset
            yield entry, end
            tar.members.clear()  # type: ignore[attr-defined] # it would keep a kilobyte of each


def read_member(path: Path, member: Member) -> bytes | None:
    """Read a video's bytes; None where its member is not the one that was there before.

    Args:
        path: the tar file.
        member: where it was, named by the video's id.

    Raises:
        OSError: the tar file cannot be read.
    """
    with TarReader(io.FileIO(path)) as tar:
        return tar.content(member.offset, member.size) if _is_at_its_place(tar, member) else None


def is_member(path: Path, member: Member) -> bool:
    """Return whether a video's member is still there; arguments as of :func:`read_member`."""
    with TarReader(io.FileIO(path)) as tar:
        return _is_at_its_place(tar, member)


def _is_at_its_place(tar: TarReader, member: Member) -> bool:
    try:
        entry, _ = next(tar.entries(start=member.start))
    except (*DAMAGES, StopIteration):
        return False
    video_id = id_of_member(entry.name)
    if video_id is None or member.name not in (video_id, video_id + split_extension(entry.name)[1]):
        return False
    return entry.islnk() or (entry.offset_data, entry.size) == (member.offset, member.size)


def read_members(path: Path) -> TarContent:
    """List a tar file's members; of one that was cut short, those that are there whole.

    Raises:
        InputError: it is no tar file, a compressed one, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            return TarContent([], 0, "it is empty")
        with TarReader(io.FileIO(path)) as tar:
            return _read_members(tar, path=path, size=size)
    except DAMAGES as error:
        raise InputError(
            f"{path} is no tar file ({error}), it holds {described_content(path)}; shards must be "
            "plain tar files, not compressed"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _read_members(tar: TarReader, *, path: Path, size: int) -> TarContent:
    members: list[Member] = []
    places: dict[str, Member] = {}
    end = 0
    trouble = None
    try:
        for entry, next_start in tar.entries():
            if entry.islnk() and entry.linkname in places:  # another name of the same file
                place = places[entry.linkname]
                members.append(place._replace(name=entry.name, start=entry.offset))
            elif entry.isreg() and not entry.issparse():
                if entry.offset_data + entry.size > size:
                    trouble = f"it was cut short within {entry.name}"
                    break
                members.append(Member(entry.name, entry.offset, entry.offset_data, entry.size))
                places[entry.name] = members[-1]
            end = next_start
    except DAMAGES as error:
        if not members and end == 0:
            raise
        trouble = f"it was cut short ({error})"
    return TarContent(members, end, trouble or _trouble_at(path, end))


def _trouble_at(path: Path, end: int) -> str | None:
    """What is wrong where the members end: there must be a block of zeros."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "it has no end mark, so it may be cut short"
    return f"it is damaged at byte {end:,}" if block.strip(b"\0") else None
