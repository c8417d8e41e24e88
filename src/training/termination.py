"""SIGTERM: the way in which schedulers and launchers ask a run to end soon."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TerminationNotice:
    """Whether SIGTERM has come."""

    def __init__(self, when_it_comes: Callable[[], None] | None = None) -> None:
        self.has_come = False
        self._when_it_comes = when_it_comes

    def _take(self, _signal: int, _frame: FrameType | None) -> None:
        if not self.has_come and self._when_it_comes is not None:
            self._when_it_comes()
        self.has_come = True


@contextmanager
def noticing_termination(
    when_it_comes: Callable[[], None] | None = None,
) -> Iterator[TerminationNotice]:
    """Context in which SIGTERM does not end the process but is noted.

    More of them change nothing: a launcher passes on what its whole process group has got already.
    Only a process's main thread can receive signals; others notice nothing.

    Args:
        when_it_comes: called at the first.
    """
    notice = TerminationNotice(when_it_comes)
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    before = signal.signal(signal.SIGTERM, notice._take)  # noqa: SLF001
    try:
        yield notice
    finally:
        signal.signal(signal.SIGTERM, before)
