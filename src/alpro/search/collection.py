"""Video files of a collection on disk, and their share of each of several processes."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from alpro.datasets.storage.directory_index import (
    VIDEO_EXTENSIONS,
    folder_trouble,
    is_open_folder,
    split_extension,
)
from alpro.errors import InputError, listed, printable
from alpro.search.index import FileState

_DIGESTED_BYTES = 1 << 16  # at each end of a file


@dataclass(slots=True)
class Collection:
    """Files that were found."""

    videos: dict[Path, FileState] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    """Number of files with another extension, by extension."""
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Reason by folder or file that could not be looked at."""


def find_videos(roots: Sequence[Path], *, exclude: Sequence[str] = ()) -> Collection:
    """Find the videos in folders and their subfolders; links are followed, each folder once.

    Hidden files and folders, whose names begin with a dot, are passed over.

    Args:
        roots: folders, or single files.
        exclude: patterns (``*/raw/*``) of paths to pass over.

    Raises:
        InputError: a root is not there or cannot be read, or there is no video at all.
    """
    collection, seen = Collection(), set[tuple[int, int]]()
    tops = list(_folders_of(roots, collection))
    # Links last: of several ways to a folder, the one without links names its files.
    pending, links = tops.copy(), list[Path]()
    while pending or links:
        folder = (pending or links).pop()
        try:
            state = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda one: one.name)
        except OSError as error:
            collection.unreadable[folder] = error.strerror or str(error)
            continue
        if (state.st_dev, state.st_ino) in seen:  # a loop of links, or a second way to it
            continue
        seen.add((state.st_dev, state.st_ino))
        for entry in entries:
            path = Path(entry.path)
            if path.name.startswith(".") or any(fnmatch(str(path), one) for one in exclude):
                continue
            if os.path.isdir(path):
                (links if entry.is_symlink() else pending).append(path)
            else:
                _take(path, collection)
    if not collection.videos:
        raise InputError(_nothing(roots, collection))
    for top in tops:
        if not any(path.is_relative_to(top) for path in collection.videos):
            collection.unreadable.setdefault(top, "no video is there; what is indexed is kept")
    return collection


def _folders_of(roots: Sequence[Path], collection: Collection) -> Iterator[Path]:
    for root in roots:
        path = Path(os.path.abspath(root))
        if path.is_file():
            _take(path, collection)
        elif is_open_folder(path):
            yield path
        else:
            raise InputError(printable(folder_trouble(path)))


def _take(path: Path, collection: Collection) -> None:
    extension = split_extension(path.name)[1]
    if extension not in VIDEO_EXTENSIONS and os.path.exists(path):  # a link may be to a lost folder
        collection.others[extension or "no extension"] += 1
        return
    try:
        if path.exists() and not path.is_file():  # a pipe, say, whose reader would wait forever
            raise OSError("it is no regular file")
        collection.videos[path] = state_of(path)
    except OSError as error:
        collection.unreadable[path] = error.strerror or str(error)


def _nothing(roots: Sequence[Path], collection: Collection) -> str:
    names = listed([printable(str(root)) for root in roots])
    kinds = [f"{count:,} {kind}" for kind, count in collection.others.most_common()]
    beside = f" Files there: {listed(kinds)}." if kinds else ""
    for path, reason in list(collection.unreadable.items())[:1]:
        beside += f" {printable(str(path))}: {reason}."
    return f"{names}: no video ({listed(VIDEO_EXTENSIONS, most=4)}) is there.{beside}"


def state_of(path: Path) -> FileState:
    """Size and time of the last change of a file."""
    state = os.stat(path)
    return FileState(state.st_size, state.st_mtime_ns)


def digest_of(path: Path) -> bytes:
    """Digest of a file's size and of the bytes at its ends, by which it is known when moved."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(size.to_bytes(8, "little"))
        digest.update(file.read(_DIGESTED_BYTES))
        file.seek(max(0, size - _DIGESTED_BYTES))
        digest.update(file.read(_DIGESTED_BYTES))
    return digest.digest()[:16]


def share_of(videos: dict[Path, FileState], *, part: int, num_parts: int) -> dict[Path, FileState]:
    """Files of one of several processes; all get about as many bytes.

    The shares depend on the files alone, and not on what is indexed already, so that processes that
    start at different times agree.
    """
    loads = [(0, number) for number in range(num_parts)]
    share = {}
    for path, state in sorted(videos.items(), key=lambda one: (-one[1].size, one[0])):
        load, number = loads[0]
        heapq.heapreplace(loads, (load + state.size, number))
        if number == part:
            share[path] = state
    return share
