"""Quarantine of videos whose decoding had to be cut off."""

from __future__ import annotations

import json
import logging
import os
import stat
from math import inf
from pathlib import Path
from typing import NamedTuple

from alpro.user_files import parse_json

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 26  # that are read at once; a line takes about 150


class _Record(NamedTuple):
    """A line: a video that was cut off, and the limits that it exceeded."""

    video: str
    reason: str
    seconds: float
    megabytes: float


class Quarantine:
    """Reasons by video, shared by all workers and ranks of a run through a file of JSON lines.

    A line is appended in one write; lines of other processes are read when the file has grown. A
    line that is incomplete, or was garbled by a network drive, is skipped: its video is tried once
    more at worst. A video that exceeded lower limits than the current ones counts as never tried.
    Lines may be deleted at any time. Without a path, videos are kept in memory.
    """

    def __init__(self, path: Path | None, *, seconds: float = 0, megabytes: int = 0) -> None:
        """Set the current limits of time and memory, 0 for none."""
        self.path = path
        self.seconds = seconds
        self.megabytes = megabytes
        self._read: dict[str, str] = {}  # reasons in the file, by video
        self._unwritten: dict[str, str] = {}  # reasons that are not in the file
        self._num_read = 0  # bytes read of the file, up to the end of a line
        self._file_number: int | None = None  # inode that they were read from

    @property
    def remedy(self) -> str:
        """Way to have a video tried again."""
        if self.path is None:
            return "a new run tries it again"
        return f"to try it again, delete its line in {self.path}"

    def reason_for(self, key: str) -> str | None:
        """Reason why a video was cut off; None if it was not, or by lower limits only."""
        self._read_new()
        return self._read.get(key) or self._unwritten.get(key)

    def add(self, key: str, reason: str) -> None:
        """Add a video to the quarantine; log and continue if the file is not writable."""
        if self.path is None:
            self._unwritten[key] = reason
            return
        record = _Record(key, reason, self.seconds, self.megabytes)
        line = json.dumps(record._asdict(), ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, line.encode(errors="surrogatepass"))
        except OSError as error:
            self._unwritten[key] = reason
            logger.warning(
                "%s: cannot be written, other processes will try %s, too: %s", self.path, key, error
            )

    def _read_new(self) -> None:
        if self.path is None:
            return
        # Read what was appended since the last time.
        try:
            status = self.path.stat()
            # Lines were deleted, perhaps with an editor, which writes a new file: start over.
            if status.st_size < self._num_read or status.st_ino != self._file_number:
                self._read, self._num_read, self._file_number = {}, 0, status.st_ino
            if status.st_size == self._num_read or not stat.S_ISREG(status.st_mode):
                return
            with self.path.open("rb") as file:
                file.seek(self._num_read)
                new = file.read(_MAX_BYTES)
        except FileNotFoundError:  # not yet written, or deleted
            self._read, self._num_read, self._file_number = {}, 0, None
            return
        except OSError:  # reported when a video is added
            return
        # Keep the complete lines whose limits were at least the current ones.
        whole, newline, _ = new.rpartition(b"\n")
        self._num_read += len(whole) + len(newline)
        for line in whole.split(b"\n"):
            record = _record(line)
            if record is None:
                continue
            has_less_time = (self.seconds or inf) <= (record.seconds or inf)
            if has_less_time and (self.megabytes or inf) <= (record.megabytes or inf):
                self._read[record.video] = record.reason


def _append(path: Path, line: bytes) -> None:
    """Append a line in one write, on a new line if the last one was cut short."""
    number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(number).st_size
        is_cut_short = size > 0 and os.pread(number, 1, size - 1) != b"\n"
        os.write(number, b"\n" + line if is_cut_short else line)
    finally:
        os.close(number)


def _record(line: bytes) -> _Record | None:
    """Parse a line; None if it is invalid, being incomplete or edited by hand, for instance."""
    try:
        read = parse_json(line.decode(errors="surrogatepass"))
        record = _Record(**{"seconds": 0, "megabytes": 0, **read})
    except (ValueError, TypeError):
        return None
    are_texts = all(isinstance(text, str) for text in (record.video, record.reason))
    are_limits = all(isinstance(n, int | float) for n in (record.seconds, record.megabytes))
    return record if are_texts and are_limits else None
