"""Checks of the output before any work: folders, names, permissions, space, and a lock."""

import errno
import fcntl
import logging
import os
import tempfile
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

from alpro.errors import FULL_DISK_REMEDIES, InputError, shortened
from alpro.training.atomic_io import (
    FullDiskError,
    existing_folder,
    free_bytes,
    free_files,
    full_disk_ends_run,
    temporary_of,
)
from alpro.user_files import reason_of, why_unreadable

logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds for the processes of an ended job to exit
_PAUSE = 0.1  # seconds between two attempts
_HELD = (errno.EACCES, errno.EAGAIN)  # errors of a lock that another process holds
_PROBE_BYTES = 1 << 16  # small files of a run take as much
_SHOWN = 200  # characters of a path
_NUM_FILES = 32  # least number of a run, with folders and temporary files


def check_output_folder(
    root: Path,
    *,
    patterns: Sequence[str] = (),
    appended: Sequence[str] = (),
    named_by: str = "output_dir",
    tries: bool = True,
) -> None:
    """Check that a folder exists or can be created, and is writable, without creating it.

    Args:
        root: the folder.
        patterns: files that will be written or replaced below it.
        appended: files that will be appended to.
        named_by: the key or flag that names the folder.
        tries: write a temporary file to the folder, or to its nearest existing parent.
    """
    # Each file must have a folder that can be created, and nothing else in its place.
    there = [root / name for name in appended]
    files = [root / "file", *there, *(root / pattern.replace("*", "0") for pattern in patterns)]
    reason = next(filter(None, map(_trouble, files)), None)
    if reason is None:
        present = [file for pattern in patterns for file in root.glob(pattern)]
        reason = next(filter(None, map(_trouble, present)), None)
        locked = (p for p in there if p.exists() and not os.access(p, os.R_OK | os.W_OK))
        reason = reason or next((f"{path} cannot be written to" for path in locked), None)
        if reason is None and tries:
            reason = _trial_trouble(root, root)
    if reason is not None:
        remedy = f"Change that, or give another {named_by}."
        raise InputError(f"{named_by}: {shortened(str(root), most=_SHOWN)}: {reason}. {remedy}")


def check_output_file(path: Path, *, named_by: str) -> None:
    """Check that a file, which the flag `named_by` names, can be written or replaced."""
    if reason := _trouble(path) or _trial_trouble(path.parent, path):
        shown = shortened(str(path), most=_SHOWN)
        raise InputError(f"cannot write {shown}: {reason}; give another {named_by}")


def check_space(root: Path, *, num_bytes: int) -> None:
    """Check that a disk has space for a run's first checkpoint and restore file."""
    free, num_files = free_bytes(root), free_files(root)
    # Unknown numbers are not judged.
    problem = ""
    if 0 < free < num_bytes:  # some network file systems report 0
        problem = f"{free:,} bytes are free there, the first checkpoint and restore file need at "
        problem += f"least {num_bytes:,}"
    elif num_files is not None and 0 < num_files < _NUM_FILES:
        problem = f"only {num_files} more files can be made there (inodes)"
    if problem:
        raise FullDiskError(f"output_dir: {root}: {problem}.", FULL_DISK_REMEDIES[errno.ENOSPC])


def _trouble(file: Path) -> str | None:
    """Reason why a file cannot be written by way of a temporary one, if any."""
    if not file.name:  # . or /
        return f"{file} is a folder, not a file"
    names = (file, temporary_of(file))
    reason = _folder_trouble(file.parent, names=[path.name for path in names])
    return reason or next(filter(None, map(_file_trouble, names)), None)


def _folder_trouble(folder: Path, *, names: Iterable[str]) -> str | None:
    """Reason why files cannot be created in a folder that may not exist yet, if any."""
    # The nearest existing parent must be a writable folder.
    path = folder.absolute()
    chain = [*reversed(path.parents), path]
    there = [part for part in chain if os.path.lexists(part)]
    nearest = there[-1]
    missing = [part.name for part in chain[len(there) :]]
    if not os.path.isdir(nearest):
        is_link = os.path.islink(nearest) and not os.path.exists(nearest)
        what = "is a link to a folder that does not exist" if is_link else "is not a folder"
        return f"{nearest} {what}"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"the folder {nearest} cannot be written to"
    # Check each name in an existing folder: the system reports a missing one before a long name.
    for made in [nearest / name for name in (*missing, *names)] + [path / name for name in names]:
        try:
            os.lstat(made)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{shortened(str(made), most=_SHOWN)} cannot be made ({reason_of(error)})"
    return None


def _file_trouble(path: Path) -> str | None:
    """Reason why a path cannot be replaced by a file, if any."""
    if os.path.isfile(path) or not os.path.lexists(path):
        return None
    return f"{path} {why_unreadable(path)}"


def _trial_trouble(root: Path, path: Path) -> str | None:
    """Reason why writing to a folder or its nearest existing parent fails, if it does."""
    folder = existing_folder(root)
    try:
        with full_disk_ends_run(path), tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"no file can be made in {folder} ({reason_of(error)})"
    return None


class RunLock:
    """POSIX lock on a file as long as this object exists.

    Forked processes do not hold it. Closing any descriptor of the file releases it, so that nothing
    else may open the file.
    """

    def __init__(self, path: Path, *, root: Path, named_by: str = "output_dir") -> None:
        """Lock the folder `root`, which the key or flag `named_by` names.

        Raises:
            InputError: another process holds the lock for longer than `PATIENCE`.
        """
        # The descriptor stays open: closing it would release the lock.
        with full_disk_ends_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, number)
        # A job that has just ended may hold the lock for some seconds.
        until = time.monotonic() + PATIENCE
        is_ours = _take(number)
        if not is_ours:
            logger.warning("another process writes to %s, waiting for its end", root)
        while not is_ours and time.monotonic() < until:
            time.sleep(_PAUSE)
            is_ours = _take(number)
        if not is_ours:
            raise InputError(
                f"{named_by}: another process writes to {root}. Wait until it ends, or name "
                f"another {named_by}."
            )


def _take(number: int) -> bool:
    """Try to lock a file; always succeed on file systems without locks."""
    try:
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True
