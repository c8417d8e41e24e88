"""The exceptions that mean something to the user, and how a script ends on them."""

import atexit
import errno
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from alpro.console import console
from alpro.launchers import process_name

logger = logging.getLogger(__name__)

FILE_ONLY = "file_only"  # attribute of log records that the console leaves out
USER_ERROR_EXIT_CODE = 2
FAILURE_EXIT_CODE = 1
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells tell it

# By which schedulers, launchers and terminals ask a run to end soon; SLURM sends what its option
# --signal says, which is SIGUSR1 or SIGUSR2 by custom.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GROUP_SIGNALS = (signal.SIGINT, *STOP_SIGNALS)
"""Signals that the whole process group gets, and only a run's main process shall act on."""

_ONE_INTERRUPT_SECONDS = 1.0
GRACE_SECONDS = 5.0  # in which a launcher ends the ranks that have lost another one


class InputError(ValueError):
    """A mistake in what the user gave us: a file, a key, a flag, a folder.

    The message names the file, key and value, and says what to do. Entry scripts print it without a
    traceback and exit with ``USER_ERROR_EXIT_CODE``.
    """


class RunError(RuntimeError):
    """What ends a run though the program works as it should: a full disk, a loss that is NaN.

    Entry scripts print the message without a traceback and exit with ``FAILURE_EXIT_CODE``.
    """


class NotNumbersError(RunError):
    """Outputs of a model that are NaN, as of weights that are too large for the precision."""

    def __init__(self, outputs: str) -> None:
        """Take what is NaN, in words: "3 retrieval scores"."""
        super().__init__(
            f"{outputs} are NaN. The weights are those of a run that diverged, or too large for "
            "this precision: name another checkpoint, or set precision to fp32."
        )


class ScarcityError(RunError):
    """The machine lacks something: memory, space, open files, processes. The message says what."""


class PeerLostError(RuntimeError):
    """An exchange with other ranks failed, as a rule because one of them has ended.

    That rank tells why, so this one keeps silent for ``GRACE_SECONDS``, in which its launcher ends
    it.
    """


class TerminatedError(Exception):
    """SIGTERM came, and the run has saved what it needs to go on. Entry scripts exit with 0."""


FULL_DISK_REMEDIES = {  # error number of a disk that takes no more -> what helps
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
    """Return whether an error, of the system or of a library, comes of too little memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if type(error).__name__ == "OutOfMemoryError":  # PyTorch's, which is not imported for it
        return True
    is_of_system = isinstance(error, ImportError | OSError | RuntimeError)
    return is_of_system and _tells_of_no_memory(str(error))


def lacks_threads(error: BaseException) -> bool:
    """Return whether an error means that the system starts no more threads."""
    return isinstance(error, RuntimeError) and str(error) in _NO_THREAD


def _tells_of_no_memory(text: str) -> bool:
    return any(sign in text.lower() for sign in _SIGNS_OF_NO_MEMORY)


def known_error(error: BaseException) -> InputError | RunError | None:
    """Return what an exception means to the user; None where the program is to blame.

    A lack of memory, space, files or processes is a `ScarcityError`, any other refusal of the
    system that names a file an `InputError`.
    """
    if isinstance(error, InputError | RunError):
        return error
    if is_out_of_memory(error):
        lines = str(error).strip().split("\n")
        text = next(filter(_tells_of_no_memory, lines), lines[0])[:_MAX_SHOWN].strip().rstrip(".")
        said = f" ({text})" if text else ""
        return ScarcityError(f"out of memory{said}. {_OUT_OF_MEMORY}.")
    if lacks_threads(error):
        return ScarcityError(f"{error}. {OUT_OF_PROCESSES}.")
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
    """Raise a lack of open files or processes, which is no fault of the file that was read.

    Memory is left out: a damaged file may declare to need any amount of it.
    """
    known = known_error(error)
    is_disk = isinstance(error, OSError) and error.errno in FULL_DISK_REMEDIES
    if isinstance(known, ScarcityError) and not is_disk and not is_out_of_memory(error):
        raise known from error


_MAX_SHOWN = 300  # characters of a library's message


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; what the user must know ends it with one message.

    Of several processes the message names the one at fault, and ``torchrun``, which ends with a
    report of its own, is told it.
    """
    # Python collects garbage once more at its end, for seconds; launchers do not wait that long.
    atexit.register(gc.freeze)
    try:
        with interruptible(), console():
            _refuse_lost_docstrings()
            main()
    except TerminatedError as terminated:
        if terminated.args:
            sys.stderr.write(f"stopped{process_name()}: {terminated}\n")
        sys.exit(0)
    except PeerLostError:
        time.sleep(GRACE_SECONDS)
        _tell(f"{traceback.format_exc()}{process_name().strip()}\n")
        sys.exit(FAILURE_EXIT_CODE)
    except KeyboardInterrupt as interrupt:
        message = "; ".join([f"interrupted{process_name()}", *map(str, interrupt.args)])
        sys.stderr.write(f"{message}\n")
        sys.exit(INTERRUPTED_EXIT_CODE)
    except Exception as error:
        known = known_error(error)
        if known is not None:
            if known is not error:
                _log(traceback.format_exc())
            _tell(f"error{process_name()}: {known}\n")
            sys.exit(exit_code_for(known))
        if name := process_name():
            error.add_note(name.strip())
        _log(traceback.format_exc())
        tell_torchrun(traceback.format_exc())
        raise


def _refuse_lost_docstrings() -> None:
    if sys.flags.optimize > 1:
        raise InputError(
            "Python was told to leave docstrings out (-OO, or PYTHONOPTIMIZE=2 in the environment),"
            " which transformers cannot do without. Run it without -OO; unset PYTHONOPTIMIZE."
        )


@contextmanager
def interruptible() -> Iterator[None]:
    """Context in which the first Ctrl-C raises KeyboardInterrupt, and later ones end the process.

    So they do after it, while Python ends: what is interrupted there prints a traceback. A launcher
    passes on at once what the whole process group has got; that counts as one.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[float] = []

    def take(_number: int, _frame: FrameType | None) -> None:
        came.append(time.monotonic())
        if len(came) == 1:
            raise KeyboardInterrupt
        if came[-1] - came[0] > _ONE_INTERRUPT_SECONDS:
            _end_at_once()

    signal.signal(signal.SIGINT, take)
    try:
        yield
    finally:
        if not came:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            atexit.unregister(_expect_no_interrupt)
            atexit.register(_expect_no_interrupt)  # last, so that it is called first


def _expect_no_interrupt() -> None:
    signal.signal(signal.SIGINT, lambda *_: _end_at_once())


def _end_at_once() -> None:
    os.write(2, b"interrupted: ended at once\n")
    os._exit(INTERRUPTED_EXIT_CODE)


def exit_code_for(error: InputError | RunError) -> int:
    """Return the exit code that says whose fault an error is."""
    return USER_ERROR_EXIT_CODE if isinstance(error, InputError) else FAILURE_EXIT_CODE


def _log(text: str) -> None:
    """Leave last words in the run's log file, if there is one by now."""
    if logging.getLogger().handlers:
        logger.error(text.strip(), extra={FILE_ONLY: True})


def _tell(text: str) -> None:
    _log(text)
    with suppress(OSError):  # standard error may lead to a full disk
        sys.stderr.write(text)
        sys.stderr.flush()
    tell_torchrun(text)


def tell_torchrun(text: str) -> None:
    """Leave word for the report in which ``torchrun`` names the first rank that failed.

    Source: ``torch.distributed.elastic.multiprocessing.errors``, whose file format this is.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": text, "extraInfo": extra}}, file)
