"""The files of one folder, found by ids."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS
from alpro.datasets.storage.file_names import (
    VIDEO_EXTENSIONS,
    may_be_video,
    split_extension,
    with_small_extension,
)
from alpro.errors import raise_scarcity

_LAST_RANK = len(VIDEO_EXTENSIONS) + 2
"""Of files whose extension is unknown."""


class Match(NamedTuple):
    """A file that an id may name; of several the one with the lowest rank is meant."""

    rank: int
    name: str

    @property
    def has_known_extension(self) -> bool:
        """Whether it is a video for sure."""
        return self.rank < _LAST_RANK


class DirectoryIndex:
    """A folder's files by their names without extension, and its subfolders."""

    def __init__(self, folder: str) -> None:
        self.folders: list[str] = []
        self.files: dict[str, str | list[str]] = {}
        """Most names are of one file; a list for each would double what 200,000 of them take."""
        self.not_files: set[str] = set()
        """Links to nowhere, such as those that git-annex has not fetched, pipes, devices."""
        self.trouble: str | None = None
        """Reason why the folder cannot be listed, though it is there."""
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry.name, is_folder(entry), _is_file(entry)) for entry in entries)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return
        except OSError as error:  # it must not be read, has gone meanwhile, or is a name too long
            raise_scarcity(error)
            self.trouble = error.strerror
            return
        if not os.access(folder, os.X_OK):  # names can be listed, and files not be opened
            self.trouble = os.strerror(errno.EACCES)
            return
        for name, holds_files, can_be_read in found:
            if holds_files:
                self.folders.append(name)
                continue
            if not can_be_read:
                self.not_files.add(name)
            self._add(name)

    def _add(self, name: str) -> None:
        stem = split_extension(name)[0]
        others = self.files.get(stem)
        if others is None:
            self.files[stem] = name
        elif isinstance(others, str):
            self.files[stem] = [others, name]
        else:
            others.append(name)

    def names(self) -> Iterator[str]:
        """All files, and what is named like one."""
        for names in self.files.values():
            yield from _as_list(names)

    def find(self, name: str, *, extension: str) -> Match | None:
        """The file that an id without its folder names.

        The dataset's own extension comes first, then one that the id has itself, then the common
        ones, and last an unknown one, if only one file has it.
        """
        own = self._files_of(split_extension(name)[0])
        longer = self._files_of(name)
        # In reverse, since a.mp4 stands after a.MP4, and wins.
        by_small_name = {with_small_extension(each): each for each in (*own, *longer)}
        if by_small_name:
            for rank, candidate in enumerate(_candidates(name, extension=extension)):
                if candidate in by_small_name:
                    return Match(rank, by_small_name[candidate])
        unknown = [each for each in longer if may_be_video(each)]
        if name in own and may_be_video(name):
            unknown = [name]
        return Match(_LAST_RANK, unknown[0]) if len(unknown) == 1 else None

    def _files_of(self, stem: str) -> list[str]:
        names = _as_list(self.files.get(stem))
        return [name for name in names if name not in self.not_files]


def _candidates(name: str, *, extension: str) -> Iterator[str]:
    yield name + extension
    has_own = split_extension(name)[1] in (*VIDEO_EXTENSIONS, *IMAGE_EXTENSIONS)
    yield with_small_extension(name) if has_own else ""
    for common in VIDEO_EXTENSIONS:
        yield name + common


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Also of links; those that lead nowhere, or around, are none."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_file(entry: os.DirEntry[str]) -> bool:
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()


def _as_list(names: str | list[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else names
