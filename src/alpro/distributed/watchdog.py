"""Noticing that a process hangs."""

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
    """Ends this process if it reports no progress for long, after printing where it stands.

    Every rank has one. A rank that hangs keeps the others waiting for it, so that all of them stand
    still since about the same time, and each prints its own stack.
    """

    def __init__(self, timeout: float) -> None:
        """Begin to watch the calling thread.

        Args:
            timeout: seconds without progress after which the process ends.
        """
        self.waits_for_others = False
        """Whether this process is in an exchange with other ranks."""
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
        """Watch no longer."""
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
        """End the process even if the thread cannot look, because another holds Python's lock."""
        faulthandler.dump_traceback_later(
            self._timeout + self._pause, exit=True, file=_error_output()
        )

    def _end_process(self) -> None:
        # Describe where the watched thread is, and whether it waits for other ranks.
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
        # The rank that hangs is the one to name, and to end first.
        if not waits:
            report_to_torchrun(text)
        time.sleep(_WAITING_GRACE_SECONDS if waits else _GRACE_SECONDS)
        os._exit(FAILURE_EXIT_CODE)


def _error_output() -> TextIO:
    """Standard error, even where a test or a notebook has put something in its place."""
    return sys.__stderr__ or sys.stderr
