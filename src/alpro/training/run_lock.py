"""A lock that keeps two jobs from writing to one output folder."""

import errno
import fcntl
import logging
import os
import time
import weakref
from pathlib import Path

from alpro.errors import InputError
from alpro.training.atomic_io import full_disk_ends_run

logger = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds in which the processes of a job that has just ended are gone
_PAUSE = 0.1  # seconds between two attempts
_HELD = (errno.EACCES, errno.EAGAIN)  # either may tell that another process holds a lock


class RunLock:
    """Locks a file as long as this object is there, at most until the process ends.

    It is of this process alone: those that it forks do not hold it. Closing any descriptor of the
    file gives it up, as POSIX has it, so nothing else may open the file.
    """

    def __init__(self, path: Path, *, root: Path, named_by: str = "output_dir") -> None:
        """Take the lock; one that is still held is waited for a little.

        Args:
            path: of the file, which is made if it is not there.
            root: folder that it stands for, as the user knows it.
            named_by: the key or flag that names it.

        Raises:
            InputError: if another process holds it.
            RunError: if the disk is full.
        """
        with full_disk_ends_run(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        weakref.finalize(self, os.close, number)
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
