"""Concatenation of datasets, and the loader that prefetches batches."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import signal
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from multiprocessing.context import ForkContext, ForkProcess
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar, Protocol, TypeVar, cast
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from alpro.datasets.batch_transfer import BatchChannel, Parcel, Refusal, or_refusal
from alpro.errors import (
    FULL_DISK_REMEDIES,
    OUT_OF_PROCESSES,
    ScarcityError,
    known_error,
    lacks_threads,
)
from alpro.isolation.worker import end_with_parent
from alpro.launchers import GROUP_SIGNALS

Sample = TypeVar("Sample")
Sample_co = TypeVar("Sample_co", covariant=True)

PREFETCHED_BATCHES_PER_WORKER = 4
_NO_THREAD_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h
_CRASHES = (signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)
_SEMAPHORES = (
    "The semaphores of loader workers need a /dev/shm that can be written to (docker run "
    "--shm-size 1g, or --ipc=host); n_workers 0 does without."
)
_LESS_MEMORY = (
    "Lower n_workers, train_batch_size (in evaluation val_batch_size or inference_batch_size) or "
    "decode_memory, or give the job more memory."
)
_ISOLATE = "Keep decode_timeout or decode_memory above 0, so that videos are read in isolation."


class EpochSet(Protocol[Sample_co]):
    """A dataset whose samples are functions of (epoch, index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Sample_co: ...


class ConcatDataset(Dataset[Sample]):
    """Concatenation of datasets, indexed by ``(epoch, index)``."""

    def __init__(self, sets: Sequence[EpochSet[Sample]]) -> None:
        if not sets:
            raise ValueError("no sets to join")
        self.sets = sets
        self.ends = list(accumulate(len(one) for one in sets))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        which = bisect_right(self.ends, index)
        begin = self.ends[which - 1] if which else 0
        return self.sets[which][epoch, index - begin]


@dataclass(slots=True)
class _BatchReader(Dataset[Any]):
    """Whole batches by the keys of their samples; runs in the workers."""

    dataset: Any
    collate: Callable[[list[Any]], Any]
    channels: list[BatchChannel] = field(default_factory=list)  # one of each worker

    def __getitem__(self, keys: list[Any]) -> Any:
        worker = get_worker_info()
        if worker is None:
            return self._read(keys)
        return or_refusal(lambda: self.channels[worker.id].send(self._read(keys)))

    def _read(self, keys: list[Any]) -> Any:
        return self.collate([self.dataset[key] for key in keys])


class _Worker(ForkProcess):
    """A worker; its queue sends by a thread, which may be one too many for the system."""

    def run(self) -> None:
        try:
            super().run()
        except RuntimeError as error:
            if not lacks_threads(error):
                raise
            os._exit(_NO_THREAD_EXIT_CODE)  # it can send nothing else


class _WorkerContext(ForkContext):
    Process = _Worker


class _BatchLoader(DataLoader[Any]):
    """Starts workers that share memory, and reports their end to the user."""

    _workers: Sequence[BaseProcess] = ()
    # All loaders: one that waits for validation does not watch its workers itself.
    _with_workers: ClassVar[WeakSet[_BatchLoader]] = WeakSet()

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # narrower in PyTorch's stubs
        batches = self._start() if self.num_workers else super().__iter__()
        while True:
            self._check_workers()
            try:
                batch = next(batches)
                if isinstance(batch, Parcel):
                    batch = batch.open()
            except StopIteration:
                return
            except Exception as error:
                self._check_workers()
                known = known_error(error)
                if known is None:
                    raise
                raise known from error
            if isinstance(batch, Refusal):
                raise batch.error
            yield batch

    def _start(self) -> Iterator[Any]:
        """Begin an iteration; the first one starts the workers."""
        if self._workers:
            return super().__iter__()
        # Fork the workers. Their garbage collectors would write to every object they visit, and so
        # copy the memory of long annotation lists into each worker, unless objects are frozen.
        before = {*multiprocessing.active_children()}
        handler = signal.getsignal(signal.SIGCHLD)
        gc.freeze()
        try:
            channels = [BatchChannel() for _ in range(self.num_workers)]
            assert isinstance(self.dataset, _BatchReader)
            self.dataset.channels = channels
            batches = super().__iter__()
        # Report what is scarce, and leave no worker behind.
        except (OSError, RuntimeError) as error:
            _restore_handler(handler)
            _kill({*multiprocessing.active_children()} - before)
            is_disk = isinstance(error, OSError) and error.errno in FULL_DISK_REMEDIES
            known = None if is_disk else known_error(error)
            reason = known or f"{getattr(error, 'strerror', None) or error}. {_SEMAPHORES}"
            raise ScarcityError(f"n_workers {self.num_workers}: {reason}") from error
        finally:
            gc.unfreeze()
        # Close the workers' ends here, and have the workers end with the process.
        _restore_handler(handler)
        for channel in channels:
            channel.close_sender()
        self._workers = [*({*multiprocessing.active_children()} - before)]
        self._with_workers.add(self)
        atexit.unregister(_end_workers)  # once for all loaders
        atexit.register(_end_workers)
        return batches

    def _check_workers(self) -> None:
        """End the run if a worker has ended: its batches will never come."""
        for worker in chain.from_iterable(loader._workers for loader in self._with_workers):
            if (code := worker.exitcode) is not None:
                _end_workers()
                self._with_workers.clear()
                raise ScarcityError(_why_lost(worker.pid, code))

    @classmethod
    def disown_workers(cls) -> None:
        """Leave all workers to the parent: in a fork, collecting a loader would end them."""
        for loader in cls._with_workers:
            cast(Any, loader._iterator)._shutdown = True  # noqa: SLF001
        cls._with_workers.clear()


os.register_at_fork(after_in_child=_BatchLoader.disown_workers)


def make_loader(
    dataset: Any,
    *,
    batches: Iterable[list[Any]],
    collate: Callable[[list[Any]], Any],
    num_workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    """Build a loader that yields ``collate([dataset[key] for key in batch])`` for each batch.

    Workers prefetch batches in order, and live as long as the loader. An InputError or RunError of
    a worker reaches the caller as it was raised; a lack of memory, open files or processes, and the
    end of a worker, is a ScarcityError.
    """
    return _BatchLoader(
        _BatchReader(dataset, collate),
        sampler=batches,
        batch_size=None,  # the reader makes the batches
        collate_fn=_identity,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_prepare_worker if num_workers else None,
        persistent_workers=num_workers > 0,
        prefetch_factor=PREFETCHED_BATCHES_PER_WORKER if num_workers else None,
        # Its own: starting an iteration draws a number, which would shift those of training.
        generator=torch.Generator(),
        multiprocessing_context=_WorkerContext() if num_workers else None,
    )


def _identity(batch: Any) -> Any:
    return batch


def _prepare_worker(_worker: int) -> None:
    # More threads would compete for the cores that training itself needs.
    torch.set_num_threads(1)
    # Launchers and terminals send SIGTERM and others to the whole process group, but they are meant
    # for the trainer, which ends when it has finished with its batches. A worker ends with it and
    # at once: it holds the trainer's connections open, and other ranks wait until they are closed.
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    for number in _CRASHES:
        signal.signal(number, signal.SIG_DFL)  # where PyTorch would print a guess
    end_with_parent()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _restore_handler(handler: Any) -> None:
    # PyTorch's handler of SIGCHLD raises an error wherever the trainer is when a worker ends, be it
    # in the middle of writing a file.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler)


def _why_lost(process: int | None, code: int) -> str:
    """Describe the end of a worker, with the remedy."""
    name = f"a loader worker (process {process})"
    if code == _NO_THREAD_EXIT_CODE:
        return f"{name} can start no threads. {OUT_OF_PROCESSES}."
    if code >= 0:
        return f"{name} ended with exit code {code}; what it printed says why."
    ended = signal.Signals(-code).name if -code in [*signal.Signals] else f"signal {-code}"
    if -code == signal.SIGKILL:
        return f"{name} was killed ({ended}), as systems do that are out of memory. {_LESS_MEMORY}"
    return f"{name} was ended by {ended}: a library crashed, or memory was short. {_ISOLATE}"


def _end_workers() -> None:
    # At exit, Python would send them SIGTERM, which they ignore, and wait for them.
    _kill(child for child in multiprocessing.active_children() if child.daemon)


def _kill(workers: Iterable[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()
