"""SIGTERM and others: the ways in which schedulers and launchers ask a run to end soon."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from alpro.errors import STOP_SIGNALS


class TerminationNotice:
    """Whether one of `STOP_SIGNALS` has come."""

    def __init__(self, when_it_comes: Callable[[], None] | None = None) -> None:
        self.has_come = False
        self.name = ""
        """Of the first that has come."""
        self._when_it_comes = when_it_comes

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if not self.has_come:
            self.name = signal.Signals(number).name
            if self._when_it_comes is not None:
                self._when_it_comes()
        self.has_come = True


@contextmanager
def noticing_termination(
    when_it_comes: Callable[[], None] | None = None,
) -> Iterator[TerminationNotice]:
    """Context in which `STOP_SIGNALS` do not end the process but are noted.

    More of them change nothing: a launcher passes on what its whole process group has got already.
    What the process ignores, as SIGHUP under `nohup`, it goes on to ignore. Only a process's main
    thread can receive signals; others notice nothing.

    Args:
        when_it_comes: called at the first.
    """
    notice = TerminationNotice(when_it_comes)
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    noticed = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in noticed:
        signal.signal(number, notice._take)  # noqa: SLF001
    try:
        yield notice
    finally:
        for number in noticed:
            signal.signal(number, before[number])
