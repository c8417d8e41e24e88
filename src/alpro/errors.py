"""User-facing exceptions, and quoting of values in messages."""

from __future__ import annotations

import errno
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE_ONLY = "file_only"  # attribute of log records that are not for the console
USER_ERROR_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1
MAX_SHOWN = 60  # characters of a text and entries of a list
_MAX_QUOTED = 300  # characters of a library's message


class InputError(ValueError):
    """A user's mistake; the message names file, key, value and remedy.

    Entry scripts print it without a traceback and exit with ``USER_ERROR_EXIT_CODE``.
    """


class RunError(RuntimeError):
    """A failure without a bug: a full disk, a NaN loss.

    Entry scripts print the message without a traceback and exit with ``FAILURE_EXIT_CODE``.
    """


class NotNumbersError(RunError):
    """NaN outputs of a model, as of weights that are too large for the precision."""

    def __init__(self, outputs: str) -> None:
        """Describe the outputs: "3 retrieval scores"."""
        super().__init__(
            f"{outputs} are NaN. The weights are those of a run that diverged, or too large for "
            "this precision: name another checkpoint, or set precision to fp32."
        )


class ScarcityError(RunError):
    """A lack of memory, disk space, open files or processes."""


class PeerLostError(RuntimeError):
    """A failed collective, usually because another rank has ended, which reports the reason."""


class TerminatedError(Exception):
    """Clean end after SIGTERM: the run has saved its state, and entry scripts exit with 0."""


FULL_DISK_REMEDIES = {  # error number of a full disk -> remedy
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some space or ask for a larger quota",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f), or use another file system",
}
OUT_OF_PROCESSES = (
    "Lower n_workers, or raise the limits of processes (ulimit -u; of a container: --pids-limit) "
    "and of memory"
)
_SCARCITY_REMEDIES = {
    **FULL_DISK_REMEDIES,
    errno.EMFILE: "Raise the limit (ulimit -n 65536), or lower n_workers",
    errno.ENFILE: "Close other programs, or raise the system's limit (sysctl fs.file-max)",
    errno.ETOOMANYREFS: "Raise the limit of open files (ulimit -n 65536), or lower n_workers",
    errno.EAGAIN: OUT_OF_PROCESSES,
}
_OUT_OF_MEMORY = (
    "Lower train_batch_size (in evaluation val_batch_size or inference_batch_size), num_frm, "
    "crop_img_size or n_workers, or raise the memory limit (ulimit -v, or that of the job)"
)
_SIGNS_OF_NO_MEMORY = (
    *("can't allocate memory", "cannot allocate memory", "failed to map segment"),
    *("error: out of memory", "alloc_failed"),
)
_NO_THREAD = ("can't start new thread", "unable to start watchdog thread")  # in Python's words


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of the system or a library, means too little memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which is not imported for it
        return True
    is_of_system = isinstance(error, ImportError | OSError | RuntimeError)
    return is_of_system and _lacks_memory(str(error))


def lacks_threads(error: BaseException) -> bool:
    """Return whether an error means that no more threads can be started."""
    return isinstance(error, RuntimeError) and str(error) in _NO_THREAD


def _lacks_memory(text: str) -> bool:
    return any(sign in text.lower() for sign in _SIGNS_OF_NO_MEMORY)


def known_error(error: BaseException) -> InputError | RunError | None:
    """Translate an exception for the user; None for bugs.

    A lack of memory, space, files or processes is a `ScarcityError`, any other system error about a
    file an `InputError`.
    """
    if isinstance(error, InputError | RunError):
        return error
    # Memory and threads, for which libraries have errors of their own.
    if is_out_of_memory(error):
        lines = str(error).strip().split("\n")
        text = next(filter(_lacks_memory, lines), lines[0])[:_MAX_QUOTED].strip().rstrip(".")
        said = f" ({text})" if text else ""
        return ScarcityError(f"out of memory{said}. {_OUT_OF_MEMORY}.")
    if lacks_threads(error):
        return ScarcityError(f"{error}. {OUT_OF_PROCESSES}.")
    # System errors: scarcity by number, others by the file they name.
    if not isinstance(error, OSError) or error.errno is None:
        return None
    files = (error.filename, error.filename2)
    names = " -> ".join(os.fsdecode(name) for name in files if isinstance(name, str | bytes | Path))
    problem = f"{names}: {error.strerror}" if names else str(error.strerror)
    remedy = _SCARCITY_REMEDIES.get(error.errno)
    if remedy and not (names and error.errno == errno.EAGAIN):  # of a file: a lock, say
        return ScarcityError(f"{problem}. {remedy}.")
    return InputError(problem) if names else None


def raise_scarcity(error: BaseException) -> None:
    """Raise a lack of open files or processes, which is not the fault of the file being read."""
    # Not of memory: a damaged file may declare any size.
    known = known_error(error)
    is_disk = isinstance(error, OSError) and error.errno in FULL_DISK_REMEDIES
    if isinstance(known, ScarcityError) and not is_disk and not is_out_of_memory(error):
        raise known from error


def exit_code_for(error: InputError | RunError) -> int:
    """Return the exit code of an error."""
    return USER_ERROR_EXIT_CODE if isinstance(error, InputError) else FAILURE_EXIT_CODE


def shortened(text: str, *, most: int = MAX_SHOWN) -> str:
    """Shorten a text to one printable line."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else ascii(cut)[1:-1]


def printable(name: str) -> str:
    """Name of a file or video for printing: bytes that are not UTF-8 appear in hex."""
    return name.encode("utf-8", "backslashreplace").decode()


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Join the first names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def pluralize(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: ``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shown(value: Any) -> str:
    """Return a shortened representation of any value."""
    short = reprlib.Repr()
    short.maxlevel = 2  # a list that contains itself many times would take forever
    short.maxlist = short.maxstring = short.maxother = MAX_SHOWN
    try:
        return short.repr(value)
    except ValueError:  # an integer with more digits than Python prints
        return f"<{type(value).__name__}>"
