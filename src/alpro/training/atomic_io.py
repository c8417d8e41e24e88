"""Writing the files of a run, so that a kill, a power cut or a full disk leaves each of them whole.

A full disk ends the run with one message; what was written before is as it was.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alpro.errors import FULL_DISK_REMEDIES, RunError

HOW_TO_CONTINUE = "the same command (without --overwrite 1) continues"  # of training


class FullDiskError(RunError):
    """The disk takes no more; its message is worded for runs of training."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message(HOW_TO_CONTINUE)

    def message(self, how_to_continue: str) -> str:
        """Return the problem, its remedy, and how the work continues then."""
        return f"{self.problem}\n{self.remedy}; {how_to_continue}."


def temporary_of(path: Path) -> Path:
    """The name under which a file is written before it gets its own."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(
    path: Path,
    write: Callable[[Path], object],
    *,
    backup: Path | None = None,
    num_bytes: int | None = None,
) -> None:
    """Write a file so that it is there whole or not at all, even if the machine stops.

    Args:
        path: where the file shall be.
        write: writes the file under the temporary name it is given.
        backup: name that the file's former version keeps. One of both is there at every moment.
        num_bytes: size of the file at least, for the message of a full disk.

    Raises:
        FullDiskError: see there.
    """
    temporary = temporary_of(path)
    with full_disk_ends_run(path, num_bytes=num_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # On the disk before it gets its name: a crash must not leave the name with half a file.
            write(temporary)
            _sync(temporary)
            if backup is not None and path.exists():
                _keep(path, backup)
            temporary.replace(path)
        except BaseException:
            _remove(temporary)
            raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, atomically."""
    write_text(path, json.dumps(value, indent=4, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text, atomically; see :func:`encoded`."""
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded(text)))


def encoded(text: str) -> bytes:
    """UTF-8, with bytes that are not (in names of files) escaped as JSON has them."""
    return text.encode("utf-8", "backslashreplace")


def link_atomically(source: Path, name: Path) -> None:
    """Give a file a second name, without a copy, replacing what had it.

    Raises:
        OSError: where the file system has no hard links.
    """
    temporary = temporary_of(name)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
        temporary.replace(name)
    finally:
        # Renaming does nothing if both are names of the same file.
        temporary.unlink(missing_ok=True)
    _sync_folder(name.parent)


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines to a file; the last of them may be cut short if this fails."""
    with full_disk_ends_run(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(encoded("".join(f"{line}\n" for line in lines)))


def keep_lines(path: Path, count: int) -> int:
    """Drop, atomically, lines beyond the first ones and one cut short; return how many are left."""
    content = path.read_bytes() if path.exists() else b""
    *lines, _ = content.split(b"\n")
    kept = b"".join(line + b"\n" for line in lines[:count])
    if kept != content:
        write_atomically(path, lambda temporary: temporary.write_bytes(kept))
    return min(len(lines), count)


def sync_file(path: Path) -> None:
    """Bring a file to the disk; some file systems notice only now that it is full."""
    with full_disk_ends_run(path):
        _sync(path)


@contextmanager
def full_disk_ends_run(path: Path, *, num_bytes: int | None = None) -> Iterator[None]:
    """Context in which a file is written: errors name it, a full disk is a `FullDiskError`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        if error.errno not in FULL_DISK_REMEDIES:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        needed = "" if num_bytes is None else f", the file needs at least {num_bytes:,}"
        left = ", but no more files can be made (inodes)" if free_files(path) == 0 else needed
        raise FullDiskError(
            f"{path}: cannot be written: {os.strerror(error.errno)}. "
            f"{free_bytes(path):,} bytes are free there{left}.",
            FULL_DISK_REMEDIES[error.errno],
        ) from error


def free_bytes(path: Path) -> int:
    """Bytes that are free on the disk that a file or folder is, or will be, on."""
    return shutil.disk_usage(_folder_of(path)).free


def free_files(path: Path) -> int | None:
    """Number of files that can be made there (inodes); None where there is no limit."""
    disk = os.statvfs(_folder_of(path))
    return disk.f_favail if disk.f_files else None


def _folder_of(path: Path) -> Path:
    there = path.absolute()
    return next(one for one in (there, *there.parents) if os.path.isdir(one))


def _remove(temporary: Path) -> None:
    # Truncate first: whoever failed to write it may have it open still, which keeps its space.
    with suppress(FileNotFoundError):
        os.truncate(temporary, 0)
    temporary.unlink(missing_ok=True)


def _keep(path: Path, backup: Path) -> None:
    try:
        link_atomically(path, backup)
    except OSError:  # a file system without hard links
        path.replace(backup)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
