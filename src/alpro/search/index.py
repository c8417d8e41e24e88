"""Index of a collection of videos: a folder with an SQLite database and one vector per window.

A window of a file is known by its number: it starts at ``number * stride`` seconds and is
``window`` long, or ends with the file. Windows are stored in runs with consecutive vectors, so that
a million of them are a few thousand rows of the database.

Shapes: ``N`` windows of all files, ``R`` rows of the file of vectors, ``E`` width of the vectors.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from alpro.errors import InputError, RunError, printable
from alpro.training.atomic_io import FullDiskError

DATABASE, VECTORS = "index.sqlite3", "vectors.f16"
FORMAT = 1
_NO_SPACE = "Free some space, or raise the quota or the limit of a file's size"
BUSY_SECONDS = 30.0  # that a reader waits for a writer's transaction


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Settings that the vectors of an index depend on."""

    model: str
    """Folder of the model, as it was called."""
    fingerprint: str
    """`alpro.Model.fingerprint`."""
    embed_dim: int
    """E."""
    window: float
    """Seconds."""
    stride: float
    """Seconds."""

    def span(self, number: int, *, duration: float) -> tuple[float, float]:
        """Start and end of a window in seconds."""
        start = number * self.stride
        return start, min(start + self.window, duration)


class FileState(NamedTuple):
    """State of a file on disk, by which a change is noticed."""

    size: int
    """Bytes."""
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file that the index knows."""

    id: int
    path: Path
    state: FileState
    digest: bytes
    """Of the first and the last bytes, by which a file is known again that was moved."""
    duration: float
    """Seconds up to the end of the last window; 0 until then."""
    is_complete: bool
    """Whether all windows are there."""
    reason: str | None
    """Why it cannot be read; None if it can."""

    @property
    def name(self) -> str:
        """Path for printing: bytes that are not UTF-8 are in hex."""
        return printable(str(self.path))


class Windows(NamedTuple):
    """All windows of an index, sorted by file and time."""

    file: np.ndarray
    """(N,) int64, `IndexedFile.id`."""
    number: np.ndarray
    """(N,) int64, in the file."""
    row: np.ndarray
    """(N,) int64, of the vectors."""


class Index:
    """An index that is read; see `IndexWriter` for writing.

    Others may write to it meanwhile, which changes `revision`.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open an index.

        Raises:
            InputError: the folder holds no index, a damaged one, or one of another version.
        """
        self.folder = Path(folder)
        if not (self.folder / DATABASE).is_file():
            raise InputError(
                f"{self.folder}: there is no index. `alpro index VIDEOS --model MODEL --index "
                f"{self.folder}` makes one."
            )
        # Threads of a server share the connection, one at a time.
        self._database = sqlite3.connect(
            self.folder / DATABASE, BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        stored = dict(self._execute("SELECT name, value FROM settings"))
        stored.pop("generation", None)
        if stored.pop("format", None) != FORMAT:
            raise InputError(f"{self.folder}: an index of another version. Index again elsewhere.")
        self.settings = IndexSettings(**{**stored, "model": os.fsdecode(stored["model"])})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._database.close()

    def revision(self) -> tuple[int, int]:
        """Numbers that differ after others have written, and after this object has."""
        ((version,),) = self._execute("PRAGMA data_version")
        return version, self._database.total_changes

    def generation(self) -> int:
        """Count the changes of the index so far."""
        ((number,),) = self._execute("SELECT value FROM settings WHERE name = 'generation'")
        return int(number)

    def files(self) -> list[IndexedFile]:
        """All files, by path."""
        return [_file_of(row) for row in self._execute(f"{_SELECT_FILES} ORDER BY path")]

    def file(self, number: int) -> IndexedFile | None:
        """Return a file by its `id`; None if there is none."""
        rows = self._execute(f"{_SELECT_FILES} WHERE id = ?", number)
        return _file_of(rows[0]) if rows else None

    def windows(self) -> Windows:
        """Windows of all files, by file and time."""
        runs = self._execute("SELECT file, first, count, row FROM runs ORDER BY file, first")
        file, first, count, row = np.array(runs, np.int64).reshape(-1, 4).T
        # Number the windows within their run.
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return Windows(
            np.repeat(file, count), np.repeat(first, count) + within, np.repeat(row, count) + within
        )

    def of_path(self, path: Path) -> list[IndexedFile]:
        """Return the file of a path, or none."""
        rows = self._execute(f"{_SELECT_FILES} WHERE path = ?", os.fsencode(path))
        return [_file_of(row) for row in rows]

    def num_windows(self, file: int) -> int:
        """Count the windows of a file."""
        ((total,),) = self._execute("SELECT COALESCE(SUM(count), 0) FROM runs WHERE file = ?", file)
        return int(total)

    def vectors(self) -> np.ndarray:
        """(R, E) float16, mapped from disk; rows that no window has are of deleted files."""
        path, width = self.folder / VECTORS, self.settings.embed_dim
        # In this order: a writer may append meanwhile.
        ((needed,),) = self._execute("SELECT COALESCE(MAX(row + count), 0) FROM runs")
        size = path.stat().st_size if path.exists() else 0
        if size < needed * width * 2:
            raise InputError(f"{path}: vectors are missing. Delete {self.folder} and index again.")
        if not size:
            return np.zeros((0, width), np.float16)
        # Copied on writing, which nobody does: PyTorch warns of memory that is read-only.
        return np.memmap(path, np.float16, mode="c", shape=(size // (width * 2), width))

    def _execute(self, command: str, *values: Any) -> list[Any]:
        with access(self.folder):
            return self._database.execute(command, values).fetchall()


@contextmanager
def access(folder: Path) -> Iterator[None]:
    """Context of access to the database: SQLite's errors become those for users."""
    path = folder / DATABASE
    try:
        yield
    except sqlite3.DatabaseError as error:
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without SQLite's details
        if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):  # the latter of a quota
            raise FullDiskError(f"{path}: cannot be written ({error}).", _NO_SPACE) from error
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise RunError(f"{folder}: another process writes. Try again.") from error
        is_closed = kind in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM)
        remedy = "Check its permissions" if is_closed else f"Delete {folder} and index again"
        raise InputError(f"{path}: cannot be read ({error}). {remedy}.") from error


_SELECT_FILES = "SELECT id, path, size, mtime_ns, digest, duration, is_complete, reason FROM files"


def _file_of(row: tuple[Any, ...]) -> IndexedFile:
    number, path, size, mtime_ns, digest, duration, is_complete, reason = row
    state, path = FileState(size, mtime_ns), Path(os.fsdecode(path))
    return IndexedFile(number, path, state, digest, duration, bool(is_complete), reason)
