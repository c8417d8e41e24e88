"""Videos that are not tried again, since decoding them had to be cut off."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class Quarantine:
    """Reasons by video, shared by all workers and ranks of a run through a file of JSON lines.

    A line is appended in one write; what others have appended is read when the file has grown. A
    line that is only half there, or was mixed up with another by a network drive, is passed over:
    its video is tried once more at worst.
    """

    def __init__(self, path: Path | None) -> None:
        """Start with what the file holds, if there is one.

        Args:
            path: the file; None keeps what this process adds in its memory.
        """
        self.path = path
        self._reasons: dict[str, str] = {}
        self._num_read = 0
        """Bytes of the file that are known, up to the end of a line."""

    def reason_for(self, key: str) -> str | None:
        """Why a video was cut off, or None where it was not."""
        self._read_new()
        return self._reasons.get(key)

    def add(self, key: str, reason: str) -> None:
        """Remember a video that was cut off; a file that cannot be written to is told, no more."""
        self._reasons[key] = reason
        if self.path is None:
            return
        line = json.dumps({"video": key, "reason": reason}, ensure_ascii=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _append(self.path, line.encode(errors="surrogatepass"))
        except OSError as error:
            logger.warning(
                "%s: cannot be written, other processes will try %s, too: %s", self.path, key, error
            )

    def _read_new(self) -> None:
        if self.path is None:
            return
        try:
            size = self.path.stat().st_size
            if size == self._num_read:
                return
            if size < self._num_read:  # somebody has emptied it: to try those videos again
                self._reasons, self._num_read = {}, 0
            with self.path.open("rb") as file:
                file.seek(self._num_read)
                new = file.read()
        except OSError:  # there is none yet; if it cannot be had at all, adding to it tells
            return
        whole, newline, _ = new.rpartition(b"\n")
        self._num_read += len(whole) + len(newline)
        for line in whole.split(b"\n"):
            record = _record(line)
            if record is not None:
                self._reasons[record["video"]] = record["reason"]


def _append(path: Path, line: bytes) -> None:
    """Append in one write, on a line of its own even where the last one was cut short."""
    number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(number).st_size
        is_cut_short = size > 0 and os.pread(number, 1, size - 1) != b"\n"
        os.write(number, b"\n" + line if is_cut_short else line)
    finally:
        os.close(number)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    is_whole = isinstance(record, dict) and {"video", "reason"} <= record.keys()
    return record if is_whole else None
