"""Function calls in an isolated process, which can be killed whatever it does.

No exception ends a call that hangs in a library's C code, and a crash there ends the process. The
isolated process is a fresh interpreter: loader workers must not have children of
``multiprocessing``, and forks lack the threads of the original. It serves many calls.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TypeVar

from alpro.isolation.worker import ERROR, NOTE, OUT_OF_MEMORY, RESULT, SharedMemory, begin
from alpro.launchers import GROUP_SIGNALS

Result = TypeVar("Result")

_COMMAND = (
    "import sys; sys.path[:] = sys.argv[5:]; from alpro.isolation.worker import serve; "
    "serve(*map(int, sys.argv[1:5]))"
)
# Starting a thread per core takes 48 of the 122 ms of importing numpy, on 2 cores.
_ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
_SECONDS_TO_DIE = 5.0  # for a killed process; one that waits for a dead network drive never dies
_LONGEST_WAIT = 1.0  # seconds; of the time of a suspended job, no more than this is counted
_PRINTED_BYTES = 4096  # of a process's output that are kept
_LAST_WORDS = 200  # characters of a process's last line that a reason quotes


class CallCutOffError(Exception):
    """A call was ended from outside, or its process ended; the message says why."""


class _ProcessEndedError(CallCutOffError):
    """The call's process cannot go on; earlier calls may have contributed to it."""

    def __init__(self, reason: str, *, was_killed: bool = False) -> None:
        super().__init__(reason)
        self.was_killed = was_killed  # by SIGKILL, perhaps for memory that others use


class IsolatedProcess:
    """A process that functions are called in, one at a time.

    It is started by the first call, and by the first one after it ended. Copies, made by pickling
    or by forking the owner, start processes of their own. It ends with its owner; on Linux already
    with the thread that made its first call, which should therefore outlive all calls.
    """

    def __init__(
        self, *, seconds: float = 0, megabytes: int = 0, prepare: Callable[[], object] | None = None
    ) -> None:
        """Set limits; nothing is started yet.

        Args:
            seconds: per call, without the process's start. 0: any number.
            megabytes: of all calls together, above the memory of the process at its start and of
                their arguments (on Linux only). 0: any number.
            prepare: called first in every new process, without limits, to import libraries say.
        """
        self.seconds = seconds
        self.megabytes = megabytes
        self.prepare = prepare
        self._child: _Child | None = None
        self._is_aborted = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_child": None}

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return what ``function(*arguments)`` returns, or raise what it raises.

        All are pickled; arrays and bytes are quick.

        Raises:
            CallCutOffError: the call took too long, too much memory, or crashed its process.
        """
        # Retry in a fresh process if this one ends, or is out of memory, after other calls: a call
        # is cut off only by its own fault. If it is killed, the system may have been short of
        # memory: retry once in any case.
        if self._child is not None and not self._child.can_serve():
            self.close()
        is_fresh = self._child is None
        has_been_killed = False
        while True:
            try:
                return self._call_once(function, arguments)
            except _ProcessEndedError as error:
                is_first_kill = error.was_killed and not has_been_killed
                if self._is_aborted or (is_fresh and not is_first_kill):
                    raise
                has_been_killed |= error.was_killed
            is_fresh = True

    def close(self) -> None:
        """End the process, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def abort(self) -> None:
        """From another thread: cut off the present call, and every later one."""
        self._is_aborted = True
        child = self._child
        if child is not None:
            child.process.kill()

    def _call_once(self, function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
        # Start a process if there is none.
        if self._child is None:
            self._child = _Child(self.megabytes)
        if self._is_aborted:  # perhaps before there was a process to kill
            self.close()
            raise CallCutOffError("stopped")

        # Call; whatever goes wrong ends the process, whose state is then unknown.
        try:
            self._child.start(self.prepare, function)
            kind, value = self._child.call((function, *arguments), seconds=self.seconds)
            if kind == OUT_OF_MEMORY:
                limit = f"more than {self.megabytes} megabytes of" if self.megabytes else "too much"
                raise _ProcessEndedError(f"took {limit} memory")
        except BaseException:  # an interrupt, too: the answer must not be taken for the next one's
            self.close()
            raise
        if kind == ERROR:
            raise value
        result: Result = value
        return result


class _Child:
    """One isolated process, seen from its owner."""

    def __init__(self, megabytes: int) -> None:
        self._owner = os.getpid()
        self._channel, theirs = socket.socketpair()
        file = memory_file()
        self._memory = SharedMemory(file, is_new=True)
        numbers = (theirs.fileno(), file.fileno(), self._owner, megabytes)
        path = [entry or os.getcwd() for entry in sys.path]
        # A signal to the whole group must not end the process before it can ignore it, nor
        # interrupt this one before it knows what to clean up.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND, *map(str, numbers), *path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                pass_fds=(theirs.fileno(), file.fileno()),
                env={**os.environ, **_ONE_THREAD},
            )
            self.close = weakref.finalize(
                self, _end, self.process, self._channel, self._memory, self._owner
            )
        except BaseException:
            self._channel.close()
            self._memory.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        assert self.process.stdout is not None
        self._prints = self.process.stdout.fileno()
        os.set_blocking(self._prints, False)
        self._printed = b""
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._prints, select.POLLIN)
        self._has_started = False

    def can_serve(self) -> bool:
        """Whether the process lives, and is this process's own."""
        return self._owner == os.getpid() and self.process.poll() is None

    def start(self, prepare: Callable[[], object] | None, function: Callable[..., object]) -> None:
        """Wait until the process is ready for its first call, of this function."""
        if self._has_started:
            return
        try:
            kind, value = self.call((begin, prepare, function), seconds=0)
        except _ProcessEndedError as error:
            raise RuntimeError(f"an isolated process did not start: {error}") from error
        if kind != RESULT:
            raise value or MemoryError("to start an isolated process")
        self._has_started = True

    def call(self, message: tuple[Any, ...], *, seconds: float) -> list[Any]:
        """Send a call and return its answer, a kind and a value."""
        note = self._memory.put(message)
        self._printed = b""
        with suppress(BrokenPipeError):  # what became of the process is seen below
            self._channel.sendall(note)
        note = self._next_note(seconds=seconds)
        if not note:
            ending = self._how_it_ended()
            raise _ProcessEndedError(ending, was_killed=self.process.returncode == -signal.SIGKILL)
        return self._memory.get(note)

    def _next_note(self, *, seconds: float) -> bytes:
        """The next note; empty if the process has ended."""
        # Wait in short pieces: a suspended job must not count as one long wait.
        left = seconds
        while True:
            wait = min(left, _LONGEST_WAIT)
            begin = time.monotonic()
            ready = {number for number, _ in self._poll.poll(wait * 1000 if seconds else None)}
            if self._channel.fileno() in ready:
                try:
                    return self._channel.recv(NOTE.size)
                except ConnectionResetError:
                    return b""
            if self._prints in ready:
                self._keep_prints()
            left -= min(time.monotonic() - begin, wait)
            if seconds and left <= 0:
                raise CallCutOffError(f"took longer than {seconds:g} seconds")

    def _keep_prints(self) -> None:
        """Read the process's output, and keep the end of it."""
        with suppress(BlockingIOError):
            while part := os.read(self._prints, 1 << 16):
                self._printed = (self._printed + part)[-_PRINTED_BYTES:]
            self._poll.unregister(self._prints)  # no more will come

    def _how_it_ended(self) -> str:
        # Collect exit code and last prints.
        self.process.kill()  # it may have closed its channel only
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_SECONDS_TO_DIE)
        with suppress(KeyError):  # no more prints, which was noticed before
            self._keep_prints()
        code = self.process.returncode or 0
        # Name the signal or the exit code, and quote the last line printed.
        names = {-one.value: one.name for one in signal.Signals}
        ended = f"by {names.get(code, -code)}" if code < 0 else f"with exit code {code}"
        lines = self._printed.decode(errors="replace").split("\n")
        words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        ending = f": {words[-_LAST_WORDS:]}" if words else ""
        return f"its process ended {ended}{ending}"


def memory_file() -> IO[bytes]:
    """Open a file without a name; of memory, where the system has such files."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("shared"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _end(
    process: subprocess.Popen[bytes], channel: socket.socket, memory: SharedMemory, owner: int
) -> None:
    """End a process, or forget it if it belongs to the process that this one is a fork of."""
    if os.getpid() == owner:
        process.kill()
    else:
        process.returncode = 0  # else Python says that it still runs
    assert process.stdout is not None
    process.stdout.close()
    channel.close()
    with suppress(BufferError):  # an interrupted call may still have a view of it
        memory.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_DIE)
