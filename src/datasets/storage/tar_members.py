"""What lies where in a tar file, and the names that video ids have there.

WebDataset takes what is before the first dot of a member's base name for the key of its sample. So
dots of an id's last part are written as ``%2E`` (and ``%`` as ``%25``), and are dots again when
read; names that others wrote with dots are read as they are.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.datasets.storage.names import VIDEO_EXTENSIONS, is_hidden, split_extension
from src.errors import InputError


class Member(NamedTuple):
    """A file in a tar file."""

    name: str
    offset: int  # in bytes, of its content
    size: int
    header: int
    """`header_mark` of the block before its content."""


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
    while name.startswith(("/", "./")):
        name = name[1:]
    stem, extension = split_extension(name)
    folder, slash, last = stem.rpartition("/")
    if extension not in VIDEO_EXTENSIONS or is_hidden(last):
        return None
    return folder + slash + last.replace("%2E", ".").replace("%25", "%")


def header_mark(block: bytes) -> int:
    """A number by which a member is known again: of its last header, with its name and times."""
    return zlib.crc32(block)


def read_members(path: Path) -> TarContent:
    """List a tar file's members; of one that was cut short, those that are there whole.

    Raises:
        InputError: it is no tar file, a compressed one, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size == 0:
            return TarContent([], 0, "it is empty")
        with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape") as tar:
            return _read_members(tar, path=path, size=size)
    except (tarfile.TarError, ValueError) as error:
        raise InputError(
            f"{path} is no tar file ({error}); shards must be plain tar files, not compressed"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _read_members(tar: tarfile.TarFile, *, path: Path, size: int) -> TarContent:
    members: list[Member] = []
    places: dict[str, Member] = {}
    end = 0
    trouble = None
    try:
        for entry in _entries(tar):
            if entry.islnk() and entry.linkname in places:  # another name of the same file
                members.append(places[entry.linkname]._replace(name=entry.name))
            elif entry.isreg() and not entry.issparse():
                if entry.offset_data + entry.size > size:
                    trouble = f"it was cut short within {entry.name}"
                    break
                mark = header_mark(_block_before(tar, entry.offset_data))
                members.append(Member(entry.name, entry.offset_data, entry.size, mark))
                places[entry.name] = members[-1]
            end = tar.offset
    except (tarfile.TarError, ValueError) as error:
        trouble = f"it was cut short ({error})"
    return TarContent(members, end, trouble or _trouble_at(path, end))


def _block_before(tar: tarfile.TarFile, offset: int) -> bytes:
    assert tar.fileobj is not None
    tar.fileobj.seek(offset - tarfile.BLOCKSIZE)
    return tar.fileobj.read(tarfile.BLOCKSIZE)


def _entries(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (entry := tar.next()) is not None:
        yield entry
        tar.members.clear()  # type: ignore[attr-defined] # it would keep a kilobyte of each


def _trouble_at(path: Path, end: int) -> str | None:
    """What is wrong where the members end: there must be a block of zeros."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if not block:
        return "it has no end mark, so it may be cut short"
    return f"it is damaged at byte {end:,}" if block.strip(b"\0") else None
