"""Members of tar files, and the names that video ids have there.

WebDataset takes the part before the first dot of a member's base name for the key of its sample. So
dots of an id's last part are written as ``%2E`` (and ``%`` as ``%25``), and decoded when read;
names that others wrote with dots are read as they are.
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

MAX_HEADER_BYTES = 1 << 15  # of a member's headers, and of one read; a name takes a few thousand
_MANY_DIGITS = re.compile(rb"\d{256}")
# Exceptions of `tarfile` for arbitrary headers.
DAMAGES = (tarfile.TarError, ValueError, OverflowError, RecursionError)


class Member(NamedTuple):
    """A file in a tar file; all in bytes."""

    name: str
    start: int  # of its headers
    offset: int  # of its content: before its headers if it is a hard link to an earlier member
    size: int


class TarContent(NamedTuple):
    """Members of a tar file."""

    members: list[Member]
    end: int  # offset in bytes at which the next member would begin
    trouble: str | None  # reason why members may be lost


def member_name(video_id: str, *, extension: str) -> str:
    """The name of a video's member."""
    folder, slash, name = video_id.rpartition("/")
    return folder + slash + name.replace("%", "%25").replace(".", "%2E") + extension


def id_of_member(name: str) -> str | None:
    """The video id of a member's name; None if it is no video."""
    stem, extension = split_extension(re.sub(r"^(/|\.{1,2}/)+", "", name))
    folder, slash, last = stem.rpartition("/")
    if extension not in VIDEO_EXTENSIONS or is_hidden(last) or why_outside(stem):
        return None
    return folder + slash + last.replace("%2E", ".").replace("%25", "%")


class TarReader(io.BufferedReader):
    """File whose headers `tarfile` reads, limited in size, since they can claim any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read a part of a header."""
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = super().read(size)
        if _MANY_DIGITS.search(data):  # in which `tarfile` searches for the square of their number
            raise tarfile.ReadError("a header of digits")
        return data

    def content(self, offset: int, size: int) -> bytes:
        """Read bytes of a member, fewer if the file ends before."""
        left = os.fstat(self.fileno()).st_size - offset
        self.seek(offset)
        return super().read(max(0, min(size, left)))

    def entries(self, *, start: int = 0) -> Iterator[tuple[tarfile.TarInfo, int]]:
        """Yield members from an offset on, each with the offset of the next one."""
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
    """Read a video's bytes; None if its member, named by its id, is no longer there.

    Raises:
        OSError: the tar file cannot be read.
    """
    with TarReader(io.FileIO(path)) as tar:
        return tar.content(member.offset, member.size) if _is_at_its_place(tar, member) else None


def is_member(path: Path, member: Member) -> bool:
    """Return whether a video's member, named by its id, is still there."""
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
    """List a tar file's members; if it was cut short, those that are complete.

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
            # A hard link is another name of an earlier member.
            if entry.islnk() and entry.linkname in places:
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
        # A damaged first header means that it is no tar file.
        if not members and end == 0:
            raise
        trouble = f"it was cut short ({error})"
    return TarContent(members, end, trouble or _trouble_at(path, end))


def _trouble_at(path: Path, end: int) -> str | None:
    # After the last member there must be a block of zeros.
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "it has no end mark, so it may be cut short"
    return f"it is damaged at byte {end:,}" if block.strip(b"\0") else None
