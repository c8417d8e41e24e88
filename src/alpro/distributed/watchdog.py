"""Watchdog: detection of a hanging process."""

import faulthandler
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TextIO

from alpro.errors import FAILURE_EXIT_CODE
from alpro.launchers import process_name, report_to_torchrun

_LOOKS_PER_TIMEOUT = 20
_LONGEST_PAUSE = 5.0  # seconds between two looks
_GRACE_SECONDS = 5.0  # for the other ranks to print their stacks, before the launcher ends them
_WAITING_GRACE_SECONDS = 7.0  # the rank that hangs ends first, so that launchers name it


class Watchdog:
    """Ends this process, after printing its stack, if it reports no progress for long.

    Every rank has one. A hanging rank blocks the others, so that all time out together, and each
    prints its own stack.
    """

    def __init__(self, timeout: float) -> None:
        """Watch the calling thread; end the process after `timeout` seconds without progress."""
        self.waits_for_others = False
        """Whether this process is in a collective."""
        self._timeout = timeout
        self._pause = min(timeout / _LOOKS_PER_TIMEOUT, _LONGEST_PAUSE)
        self._watched = threading.get_ident()
        self._last_progress = time.monotonic()
        self._ended = threading.Event()
        self._watch_without_lock()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def heartbeat(self) -> None:
        """Report progress."""
        self._last_progress = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while not self._ended.wait(self._pause):
            if time.monotonic() - self._last_progress > self._timeout:
                self._end_process()
            with suppress(RuntimeError):  # no thread can be started just now
                self._watch_without_lock()

    def _watch_without_lock(self) -> None:
        """Arm a timer in C, which ends the process even if another thread holds the GIL."""
        seconds = self._timeout + self._pause
        faulthandler.dump_traceback_later(seconds, exit=True, file=_error_output())

    def _end_process(self) -> None:
        # Print the stack of the watched thread, and whether it waits for other ranks.
        faulthandler.cancel_dump_traceback_later()
        frame = sys._current_frames()[self._watched]  # noqa: SLF001  # documented, nothing else can
        stack = "".join(traceback.format_stack(frame))
        waits = self.waits_for_others
        remark = "it waits for other processes" if waits else "it does not wait for other processes"
        text = (
            f"error{process_name()}: no progress for {self._timeout:g} s (hang_timeout); {remark}. "
            f"It is here (most recent call last):\n{stack}"
        )
        _error_output().write(text)
        _error_output().flush()
        # The hanging rank ends first, and is the one that torchrun names.
        if not waits:
            report_to_torchrun(text)
        time.sleep(_WAITING_GRACE_SECONDS if waits else _GRACE_SECONDS)
        os._exit(FAILURE_EXIT_CODE)


def _error_output() -> TextIO:
    # The original stream: a replacement, as of a notebook, may have no descriptor.
    return sys.__stderr__ or sys.stderr
