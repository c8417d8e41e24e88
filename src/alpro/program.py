"""Program start and end: console, Ctrl-C, one final message, and the exit code.

Printing never ends a program: consoles may lack characters, output files may be on a full disk, and
readers may leave (``... | head -1``).
"""

import atexit
import errno
import gc
import io
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO, cast

from alpro.errors import (
    FAILURE_EXIT_CODE,
    FILE_ONLY,
    InputError,
    PeerLostError,
    TerminatedError,
    exit_code_for,
    known_error,
)
from alpro.launchers import launcher_rank, process_name, report_to_torchrun

logger = logging.getLogger(__name__)

INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as in shells
GRACE_SECONDS = 5.0  # for a launcher to end the ranks that have lost another one
_SECONDS_FOR_RANK_0 = 3.0  # less, so that a rank with an error of its own precedes those it leaves
_ONE_INTERRUPT_SECONDS = 1.0
_NAMES = ("stdin", "stdout", "stderr")  # by descriptor


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; user errors end it with one message that names the rank."""
    # Skip the final garbage collection, which takes seconds; launchers do not wait that long.
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
        _show(f"{traceback.format_exc()}{process_name().strip()}\n")
        sys.exit(FAILURE_EXIT_CODE)
    except KeyboardInterrupt as interrupt:
        message = "; ".join([f"interrupted{process_name()}", *map(str, interrupt.args)])
        sys.stderr.write(f"{message}\n")
        sys.exit(INTERRUPTED_EXIT_CODE)
    except Exception as error:
        # Most errors are the same on all ranks: a launcher ends the others once rank 0 has failed.
        if launcher_rank() not in (None, "0"):
            time.sleep(_SECONDS_FOR_RANK_0)
        # A message for the user's mistakes and the machine's limits, a traceback for bugs.
        known = known_error(error)
        if known is not None:
            if known is not error:
                _log(traceback.format_exc())
            _show(f"error{process_name()}: {known}\n")
            sys.exit(exit_code_for(known))
        if name := process_name():
            error.add_note(name.strip())
        _log(traceback.format_exc())
        report_to_torchrun(traceback.format_exc())
        raise


def _refuse_lost_docstrings() -> None:
    if sys.flags.optimize > 1:
        raise InputError(
            "Python leaves docstrings out (-OO, or PYTHONOPTIMIZE=2 in the environment),"
            " which transformers cannot do without. Run it without -OO; unset PYTHONOPTIMIZE."
        )


@contextmanager
def interruptible() -> Iterator[None]:
    """Context in which the first Ctrl-C raises KeyboardInterrupt, later ones end the process."""
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    # A launcher forwards the signal of the process group: one that follows at once is the same.
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
            # During Python's exit an interrupt would print a traceback; last in, first called.
            atexit.register(_expect_no_interrupt)


def _expect_no_interrupt() -> None:
    signal.signal(signal.SIGINT, lambda *_: _end_at_once())


def _end_at_once() -> None:
    os.write(2, b"interrupted: ended at once\n")
    os._exit(INTERRUPTED_EXIT_CODE)


def _log(text: str) -> None:
    # To the run's log file, if it exists by now.
    if logging.getLogger().handlers:
        logger.error(text.strip(), extra={FILE_ONLY: True})


def _show(text: str) -> None:
    _log(text)
    with suppress(OSError):  # standard error may lead to a full disk
        sys.stderr.write(text)
        sys.stderr.flush()
    report_to_torchrun(text)


class _Sink(io.FileIO):
    """A descriptor that drops output after the first write error."""

    problem: OSError | None = None
    """The first write error."""

    def write(self, data: Any) -> int:
        """Write all data; see :meth:`io.RawIOBase.write`."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.problem is None:
            try:
                count = super().write(left)
                if count is None:  # a non-blocking descriptor is full
                    select.select([], [self], [])
                left = left[count or 0 :]
            except OSError as error:
                self.problem = error
        return size


@contextmanager
def console() -> Iterator[None]:
    """Context in which a program prints; unprintable characters are escaped.

    Raises:
        OSError: the current folder does not exist, which libraries need; or standard output is
            incomplete, except for a reader that has left.
    """
    # Standard streams first: error messages need them.
    _open_closed()
    output = _opened("stdout")
    _opened("stderr")
    try:
        os.getcwd()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "the current folder") from error
    try:
        yield
    except SystemExit as end:
        if not end.code:
            _check(output)
        raise
    _check(output)


def _check(output: _Sink | None) -> None:
    sys.stdout.flush()
    problem = output and output.problem
    if problem and problem.errno != errno.EPIPE:
        raise OSError(problem.errno, problem.strerror, "standard output") from problem


def _open_closed() -> None:
    """Open closed streams to nowhere, else files opened later would take their descriptors."""
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            if getattr(sys, f"__{name}__") is None:
                buffer = io.FileIO(number, "r" if number == 0 else "w", closefd=False)
                stream = io.TextIOWrapper(cast(Any, buffer), encoding="utf-8", write_through=True)
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)


def _opened(name: str) -> _Sink | None:
    """Reopen a standard stream as a sink; None if it was replaced, as by tests."""
    stream = cast(TextIO, getattr(sys, name))
    if not isinstance(stream, io.TextIOWrapper) or stream is not getattr(sys, f"__{name}__"):
        return None
    raw = stream.buffer if stream.write_through else getattr(stream.buffer, "raw", None)
    if isinstance(raw, _Sink):
        return raw
    # Put a sink under the stream, with its other settings unchanged.
    stream.flush()
    sink = _Sink(stream.fileno(), "w", closefd=False)
    again = io.TextIOWrapper(
        cast(Any, sink) if stream.write_through else io.BufferedWriter(sink),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    setattr(sys, name, again)
    setattr(sys, f"__{name}__", again)
    return sink
