"""Atomic writes: a kill, a power cut or a full disk leaves every file of a run whole."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alpro.errors import FULL_DISK_REMEDIES, RunError
from alpro.installation import has_package

HOW_TO_CONTINUE = "the same command (without --overwrite 1) continues"  # of training


class FullDiskError(RunError):
    """A full disk; the default message is that of a training run."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message(HOW_TO_CONTINUE)

    def message(self, how_to_continue: str) -> str:
        """Return problem, remedy, and how the work then continues."""
        return f"{self.problem}\n{self.remedy}; {how_to_continue}."


def temporary_of(path: Path) -> Path:
    """Temporary name of a file while it is written."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(
    path: Path,
    write: Callable[[Path], object],
    *,
    backup: Path | None = None,
    num_bytes: int | None = None,
) -> None:
    """Write a file that exists whole or not at all, even after a power cut.

    Args:
        path: the file.
        write: writes it under the temporary name that it is given.
        backup: name for the former version; one of both exists at any moment.
        num_bytes: least size, for the message of a full disk.

    Raises:
        FullDiskError: the disk is full.
    """
    temporary = temporary_of(path)
    with full_disk_ends_run(path, num_bytes=num_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Sync before renaming: a crash must not leave the name with half a file.
            write(temporary)
            _sync(temporary)
            if backup is not None and path.exists():
                try:
                    link_atomically(path, backup)
                except OSError:  # a file system without hard links
                    path.replace(backup)
            temporary.replace(path)
        except BaseException:
            # Truncate first: a writer that failed may still hold it open, and with it the space.
            with suppress(FileNotFoundError):
                os.truncate(temporary, 0)
            temporary.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, atomically."""
    write_text(path, json.dumps(value, indent=4, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text, atomically; see :func:`encoded`."""
    write_atomically(path, lambda temporary: temporary.write_bytes(encoded(text)))


def encoded(text: str) -> bytes:
    """Encode as UTF-8; undecodable bytes of file names are escaped as in JSON."""
    return text.encode("utf-8", "backslashreplace")


def link_atomically(source: Path, name: Path) -> None:
    """Create or replace a hard link to a file.

    Raises:
        OSError: the file system has no hard links.
    """
    temporary = temporary_of(name)
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
        temporary.replace(name)
    finally:
        # Renaming does nothing if both are links to the same file.
        temporary.unlink(missing_ok=True)
    _sync_folder(name.parent)


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Append lines to a file; after a failure the last one may be incomplete."""
    with full_disk_ends_run(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(encoded("".join(f"{line}\n" for line in lines)))


def keep_lines(path: Path, count: int) -> int:
    """Keep the first complete lines, atomically; return their number."""
    content = path.read_bytes() if path.exists() else b""
    *lines, _ = content.split(b"\n")
    kept = b"".join(line + b"\n" for line in lines[:count])
    if kept != content:
        write_atomically(path, lambda temporary: temporary.write_bytes(kept))
    return min(len(lines), count)


def sync_file(path: Path) -> None:
    """Sync a file to the disk; some file systems report only now that it is full."""
    with full_disk_ends_run(path):
        _sync(path)


@contextmanager
def full_disk_ends_run(path: Path, *, num_bytes: int | None = None) -> Iterator[None]:
    """Context of a write: errors name the file, a full disk raises `FullDiskError`."""
    try:
        yield
    except OSError as error:
        # A full disk gets its remedy, with the size that is needed or a lack of inodes.
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


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write many records as JSON, by ujson if it is installed: a tenth of the time."""
    if not has_package("ujson"):
        write_json(path, records)
        return
    # Optional packages are imported where they are used.
    import ujson

    text = ujson.dumps(records, indent=4, ensure_ascii=False, escape_forward_slashes=False) + "\n"
    write_text(path, text)


def free_bytes(path: Path) -> int:
    """Free bytes on the disk of a file or folder that may not exist yet."""
    return shutil.disk_usage(existing_folder(path)).free


def free_files(path: Path) -> int | None:
    """Number of free inodes there; None without a limit."""
    disk = os.statvfs(existing_folder(path))
    return disk.f_favail if disk.f_files else None


def existing_folder(path: Path) -> Path:
    """Return a folder, or its nearest parent that exists."""
    there = path.absolute()
    return next(one for one in (there, *there.parents) if os.path.isdir(one))


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
