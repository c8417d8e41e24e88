"""Parallel work on files that may hang or crash, and a journal that makes it resumable."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import Any, Generic, TypeVar

from alpro.datasets.decoding.base import CutOffError, VideoReadError
from alpro.errors import InputError, raise_scarcity
from alpro.isolation.process import CallCutOffError, IsolatedProcess
from alpro.training.atomic_io import append_lines, keep_lines

Item = TypeVar("Item")
Result = TypeVar("Result")

_CUT_OFF = (CallCutOffError, CutOffError)
_FAILURES = (VideoReadError, OSError, *_CUT_OFF)
"""Errors of an item; any other error is a bug of the program."""
_RESULTS_AHEAD_PER_WORKER = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """Outcome of an item that has no result."""

    reason: str
    cut_off: bool
    """Whether it exceeded a limit or ended its process."""


def run_isolated(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    num_workers: int,
    seconds: float = 0,
    megabytes: int = 0,
) -> Generator[tuple[Item, Result | Failure]]:
    """Call a function with every item, each worker in a process of its own.

    Closing the iterator, or an interrupt, ends all processes at once.

    Args:
        function: from a module other than the command's, with light imports. It may be called again
            with an item whose process died, see ``IsolatedProcess.call``.
        items: its arguments, taken lazily.
        num_workers: concurrent processes, at least 1.
        seconds: time limit of a call; 0: none.
        megabytes: memory limit, see ``IsolatedProcess``; 0: none.

    Yields:
        Items in the order of completion, each with its result, or with a failure where the function
        raised VideoReadError or OSError or was cut off. Other errors are raised, and so is a lack
        of open files or processes.
    """
    # Workers are threads, each with a process of its own, fed through one iterator.
    feed = _Feed(items, ahead=_RESULTS_AHEAD_PER_WORKER * num_workers)
    finished: SimpleQueue[_Outcome[Item, Result]] = SimpleQueue()
    workers = [
        _Worker(function, feed, finished, IsolatedProcess(seconds=seconds, megabytes=megabytes))
        for _ in range(num_workers)
    ]
    num_running = num_workers
    try:
        for worker in workers:
            worker.start()
        while num_running:
            outcome = finished.get()
            if outcome.error is not None:
                raise outcome.error
            if outcome.pair is None:
                num_running -= 1
            else:
                feed.allow_one_more()
                yield outcome.pair
    finally:
        # Wake waiting threads and abort running calls, then wait for all.
        feed.stop(len(workers))
        for worker in workers:
            worker.process.abort()
        for worker in workers:
            if worker.ident is not None:  # an interrupt may have come before it was started
                worker.join()


class Journal:
    """Results by key in a file of JSON lines, so that an interrupted command can resume.

    Each result is on disk as soon as it is added. A line that a killed command left incomplete is
    dropped.
    """

    def __init__(self, path: Path) -> None:
        """Read earlier results.

        Raises:
            InputError: a line is not a result.
        """
        self.path = path
        self.done: dict[str, Any] = {}
        if not path.exists():
            return
        keep_lines(path, sys.maxsize)
        # Complete lines are results; a later one replaces an earlier one of its key.
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                record = json.loads(line)  # names that are not UTF-8 have surrogates
                self.done[record["key"]] = record["value"]
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path}: line {number} is not a result of an earlier run: {line[:60]!r}; "
                    f"delete the line, or the file to start over"
                ) from error

    def add(self, key: str, value: Any) -> None:
        """Append a result, any value that JSON can hold.

        Raises:
            RunError: the disk is full.
        """
        record = json.dumps({"key": key, "value": value}, ensure_ascii=True)
        append_lines(self.path, [record])
        self.done[key] = value


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[Item, Result]):
    """Message of a worker: an item with its result, an error, or neither at its end."""

    pair: tuple[Item, Result | Failure] | None = None
    error: BaseException | None = None


class _Feed(Generic[Item]):
    """Hands out items to workers, a limited number ahead of the results taken."""

    def __init__(self, items: Iterable[Item], *, ahead: int) -> None:
        self._items = iter(items)
        self._lock = Lock()
        self._room = Semaphore(ahead)
        self._is_stopped = False

    def __iter__(self) -> Iterator[Item]:
        while True:
            self._room.acquire()
            with self._lock:
                if self._is_stopped:
                    return
                try:
                    item = next(self._items)
                except StopIteration:
                    self._room.release()
                    return
            yield item

    def allow_one_more(self) -> None:
        self._room.release()

    def stop(self, num_workers: int) -> None:
        """End the items of all workers, waiting ones included."""
        self._is_stopped = True
        self._room.release(num_workers)


class _Worker(Thread, Generic[Item, Result]):
    """Thread that passes one item after the other to its process."""

    def __init__(
        self,
        function: Callable[[Item], Result],
        feed: _Feed[Item],
        finished: SimpleQueue[_Outcome[Item, Result]],
        process: IsolatedProcess,
    ) -> None:
        super().__init__()
        self._function = function
        self._feed = feed
        self._finished = finished
        self.process = process

    def run(self) -> None:
        try:
            for item in self._feed:
                self._finished.put(_Outcome((item, self._outcome_of(item))))
            self._finished.put(_Outcome())
        except Exception as error:  # noqa: BLE001  # raised where results are taken
            self._finished.put(_Outcome(error=error))
        finally:
            self.process.close()

    def _outcome_of(self, item: Item) -> Result | Failure:
        try:
            return self.process.call(self._function, item)
        except _FAILURES as error:
            raise_scarcity(error)
            return Failure(str(error) or type(error).__name__, isinstance(error, _CUT_OFF))
