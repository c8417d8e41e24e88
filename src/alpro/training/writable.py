"""Checks of what will be written, before any work: folders, names, permissions, space, a lock."""

import errno
import fcntl
import logging
import os
import stat
import tempfile
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

from alpro.errors import FULL_DISK_REMEDIES, InputError, shortened
from alpro.training.atomic_io import (
    FullDiskError,
    free_bytes,
    free_files,
    full_disk_ends_run,
    temporary_of,
)
from alpro.user_files import reason_of, why_unreadable

logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds in which the processes of a job that has just ended are gone
_PAUSE = 0.1  # seconds between two attempts
_HELD = (errno.EACCES, errno.EAGAIN)  # either may mean that another process holds a lock
_PROBE_BYTES = 1 << 16  # small files of a run take as much
_SHOWN = 200  # characters of a path
_NUM_FILES = 32  # that a run makes at least, folders included, and temporary ones


def check_output_folder(
    root: Path,
    *,
    patterns: Sequence[str] = (),
    appended: Sequence[str] = (),
    named_by: str = "output_dir",
    tries: bool = True,
) -> None:
    """Check, without making anything, that a folder is there or can be made, and be written to.

    Args:
        root: the folder.
        patterns: files that will be written below it, in place of those that are there.
        appended: files that will be appended to.
        named_by: the key or flag that names the folder.
        tries: write a temporary file to the folder, or to the one that it will be made in.
    """
    # Each file must have a folder that can be made, and nothing else in its place.
    there = [root / name for name in appended]
    files = [root / "file", *there, *(root / pattern.replace("*", "0") for pattern in patterns)]
    reason = next(filter(None, map(_trouble, files)), None)
    if reason is None:
        present = [file for pattern in patterns for file in root.glob(pattern)]
        reason = next(filter(None, map(_trouble, present)), None)
        locked = [
            path for path in there if path.exists() and not os.access(path, os.R_OK | os.W_OK)
        ]
        if reason is None and locked:
            reason = f"{locked[0]} cannot be written to"
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
    """Check that a disk has room for a run's first checkpoint and restore file."""
    free, num_files = free_bytes(root), free_files(root)
    problem = ""
    if 0 < free < num_bytes:  # some network file systems report 0
        problem = f"{free:,} bytes are free there, the first checkpoint and restore file need at "
        problem += f"least {num_bytes:,}"
    elif num_files is not None and 0 < num_files < _NUM_FILES:
        problem = f"only {num_files} more files can be made there (inodes)"
    if problem:
        raise FullDiskError(f"output_dir: {root}: {problem}.", FULL_DISK_REMEDIES[errno.ENOSPC])


def _trouble(file: Path) -> str | None:
    """Reason why a file cannot be written in place of what is there, by way of a temporary one."""
    if not file.name:  # . or /
        return f"{file} is a folder, not a file"
    names = (file, temporary_of(file))
    reason = _folder_trouble(file.parent, names=[path.name for path in names])
    return reason or next(filter(None, map(_file_trouble, names)), None)


def _folder_trouble(folder: Path, *, names: Iterable[str]) -> str | None:
    """Reason why files cannot be made in a folder that may have to be made itself."""
    # The nearest folder that is there must be one, and writable.
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
    # Where a folder is missing, the system says so before it looks at the names that follow.
    for made in [nearest / name for name in (*missing, *names)] + [path / name for name in names]:
        try:
            os.lstat(made)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{shortened(str(made), most=_SHOWN)} cannot be made ({reason_of(error)})"
    return None


def _file_trouble(path: Path) -> str | None:
    """Reason why something that is there cannot be replaced by a file."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # a folder in its way, or a link to nowhere
        is_link = os.path.islink(path)
        return f"{path} is a link to a file that does not exist" if is_link else None
    if stat.S_ISREG(mode):
        return None
    return f"{path} {why_unreadable(path)}"


def _trial_trouble(root: Path, path: Path) -> str | None:
    """Reason why no file can be made in a folder, or in the one that it will be made in."""
    absolute = root.absolute()
    folder = next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
    try:
        with full_disk_ends_run(path), tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"no file can be made in {folder} ({reason_of(error)})"
    return None


class RunLock:
    """Locks a file as long as this object is there, at most until the process ends.

    It is of this process alone: those that it forks do not hold it. Closing any descriptor of the
    file gives it up, as POSIX has it, so nothing else may open the file.
    """

    def __init__(self, path: Path, *, root: Path, named_by: str = "output_dir") -> None:
        """Take the lock of the folder `root`, which the key or flag `named_by` names.

        Raises:
            InputError: another process holds it, for longer than `PATIENCE`.
        """
        # The descriptor stays open: closing it gives the lock up.
        with full_disk_ends_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, number)
        # A job that has just ended may still hold it for some seconds.
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
    """Lock a file if nobody has; on file systems without locks everybody gets one."""
    try:
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True
