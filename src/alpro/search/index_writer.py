"""Writing of an index; see `index` for its parts.

Vectors are on disk before the transaction that mentions them, so that a kill at any moment leaves
rows of the file of vectors that nothing mentions. They are used again.

Shapes: ``N`` windows, ``E`` width of the vectors.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from alpro.errors import InputError
from alpro.search.index import DATABASE, FORMAT, VECTORS, FileState, Index, IndexSettings, access
from alpro.training.atomic_io import full_disk_ends_run, write_atomically

LOCK = "index.lock"
_TABLES = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value ANY) STRICT;
CREATE TABLE files (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    digest BLOB NOT NULL,
    duration REAL NOT NULL DEFAULT 0,
    is_complete INTEGER NOT NULL DEFAULT 0,
    reason TEXT
) STRICT;
CREATE TABLE runs (
    file INTEGER NOT NULL REFERENCES files ON DELETE CASCADE,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    row INTEGER NOT NULL
) STRICT;
CREATE INDEX runs_of_file ON runs (file, first);
"""
_INSERT = "INSERT INTO files (path, size, mtime_ns, digest) VALUES (?, ?, ?, ?) RETURNING id"


class IndexWriter(Index):
    """An index that is written, by one process at a time."""

    def __init__(self, folder: Path | str, settings: IndexSettings, *, waits: bool = False) -> None:
        """Open an index, or make a new one.

        Args:
            folder: of the index.
            settings: which it must have.
            waits: wait while another process writes to it.

        Raises:
            InputError: it was made with another model or other windows, cannot be read, or another
                process writes to it.
        """
        folder = Path(folder)
        with full_disk_ends_run(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder, waits=waits)
        try:
            if not (folder / DATABASE).is_file():
                _create(folder, settings)
            super().__init__(folder)
            check_same(folder, self.settings, settings)
            self.vectors()  # refuse to fill a gap with zeros
            self._execute("PRAGMA foreign_keys = ON")
            used = self.windows().row
            is_free = np.ones(int(used.max(initial=-1)) + 1, bool)
            is_free[used] = False
            self._free = np.flatnonzero(is_free).tolist()[::-1]
            self._num_rows = len(is_free)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Close the files, and let others write."""
        super().close()
        os.close(self._lock)

    def begin(self, path: Path, state: FileState, digest: bytes) -> int:
        """Begin a file, without windows, in place of what is known of its path; returns its id."""
        with self._transaction():
            self._forget([one.id for one in self.of_path(path)])
            ((number,),) = self._execute(_INSERT, os.fsencode(path), *state, digest)
        return int(number)

    def add(self, file: int, vectors: np.ndarray, *, duration: float) -> None:
        """Append windows to a file.

        Args:
            file: its id.
            vectors: (N, E), of the windows that follow those that it has.
            duration: seconds up to the end of the last of them.
        """
        # Write the vectors first, to rows that nothing mentions.
        first, runs = self.num_windows(file), []
        with full_disk_ends_run(self.folder / VECTORS, num_bytes=vectors.size * 2):
            for row, count in self._rows(len(vectors)):
                runs.append((file, first, count, row))
                self._write(row, vectors[:count])
                first, vectors = first + count, vectors[count:]
        with self._transaction():
            for run in runs:
                self._execute("INSERT INTO runs VALUES (?, ?, ?, ?)", *run)
            self._execute("UPDATE files SET duration = ? WHERE id = ?", duration, file)

    def finish(self, file: int, *, reason: str | None = None) -> None:
        """Mark a file as complete; or as unreadable, without windows, for a reason."""
        with self._transaction():
            if reason is not None:
                self._release(file)
                self._execute("DELETE FROM runs WHERE file = ?", file)
            self._execute("UPDATE files SET is_complete = 1, reason = ? WHERE id = ?", reason, file)

    def rename(self, file: int, path: Path) -> None:
        """Give a file that was moved its new path."""
        with self._transaction():
            self._forget([one.id for one in self.of_path(path)])
            self._execute("UPDATE files SET path = ? WHERE id = ?", os.fsencode(path), file)

    def forget(self, files: Sequence[int]) -> None:
        """Take files out."""
        with self._transaction():
            self._forget(files)

    def _forget(self, files: Sequence[int]) -> None:
        for file in files:
            self._release(file)
            self._execute("DELETE FROM files WHERE id = ?", file)

    def _release(self, file: int) -> None:
        """Keep the rows of a file for windows to come."""
        for row, count in self._execute("SELECT row, count FROM runs WHERE file = ?", file):
            self._free += range(row, row + count)

    def _rows(self, count: int) -> Iterator[tuple[int, int]]:
        """Take free rows, in runs: first row and length of each."""
        while count:
            if not self._free:
                self._num_rows += count
                yield self._num_rows - count, count
                return
            first, length = self._free.pop(), 1
            while length < count and self._free and self._free[-1] == first + length:
                self._free.pop()
                length += 1
            yield first, length
            count -= length

    def _write(self, row: int, vectors: np.ndarray) -> None:
        file = os.open(self.folder / VECTORS, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            data = np.ascontiguousarray(vectors, np.float16).data.cast("B")
            offset = row * self.settings.embed_dim * 2
            while data:
                written = os.pwrite(file, data, offset)
                data, offset = data[written:], offset + written
            os.fsync(file)
        finally:
            os.close(file)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")
            self._execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite has ended it itself if the disk is full
                self._execute("ROLLBACK")
            raise


def _locked(folder: Path, *, waits: bool) -> int:
    """Open the lock of a folder; it is free again when its holder ends, however that is."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(lock)
        raise InputError(
            f"{folder}: another process writes to this index. Wait until it ends; to share the "
            "work, start both with --part 1/2 and --part 2/2."
        ) from None
    return lock


def _create(folder: Path, settings: IndexSettings) -> None:
    def write(path: Path) -> None:
        values = {"format": FORMAT, "generation": 0, **asdict(settings)}
        values["model"] = os.fsencode(settings.model)
        with access(folder), closing(sqlite3.connect(path)) as database:
            database.executescript(_TABLES)
            database.executemany("INSERT INTO settings VALUES (?, ?)", values.items())
            database.commit()

    # A database that was killed while it was made must not be left.
    write_atomically(folder / DATABASE, write)


def is_being_written(folder: Path) -> bool:
    """Return whether a process writes to an index."""
    try:
        os.close(_locked(folder, waits=False))
    except InputError:
        return True
    return False


def check_same(folder: Path, own: IndexSettings, wanted: IndexSettings) -> None:
    """Refuse an index whose vectors or windows are of another kind than wanted.

    Raises:
        InputError: they are.
    """
    if own.fingerprint != wanted.fingerprint:
        raise InputError(
            f"{folder}: was made with another model ({own.model}), whose vectors cannot be "
            f"compared with those of {wanted.model}. Name that model, or another --index."
        )
    if (own.window, own.stride) != (wanted.window, wanted.stride):
        raise InputError(
            f"{folder}: has windows of {own.window:g} s every {own.stride:g} s, not of "
            f"{wanted.window:g} s every {wanted.stride:g} s. Leave the flags out, or name another "
            "--index."
        )
