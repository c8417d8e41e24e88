"""Standard output and error of programs: any text can be shown, and no work is lost with them.

Consoles may know few characters, files of a job's output may be on a full disk, and readers leave:
``... | head -1``.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_NAMES = ("stdin", "stdout", "stderr")  # by the numbers of their descriptors


class _Sink(io.FileIO):
    """A descriptor that drops what is written to it once it takes no more."""

    problem: OSError | None = None
    """Why it takes no more."""

    def write(self, data: Any) -> int:
        """Write all of the data; see :meth:`io.RawIOBase.write`."""
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.problem is None:
            try:
                count = super().write(left)
                if count is None:  # somebody has made the descriptor non-blocking
                    select.select([], [self], [])
                left = left[count or 0 :]
            except OSError as error:
                self.problem = error
        return size


@contextmanager
def console() -> Iterator[None]:
    """Context in which a program prints: characters that cannot be shown are shown escaped.

    Raises:
        OSError: the current folder is gone, which libraries do not survive; or what was printed is
            not all in the file that standard output leads to. A reader that has left is no error.
    """
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
    """Let closed streams lead nowhere: their numbers would go to files that are opened later."""
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
    """Open a standard stream a second time, as a sink; None where it was replaced, as by tests."""
    stream = cast(TextIO, getattr(sys, name))
    if not isinstance(stream, io.TextIOWrapper) or stream is not getattr(sys, f"__{name}__"):
        return None
    raw = stream.buffer if stream.write_through else getattr(stream.buffer, "raw", None)
    if isinstance(raw, _Sink):
        return raw
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
