"""Several sets as one, and the loader that reads batches ahead of time."""

from __future__ import annotations

import atexit
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from src.errors import InputError

Sample = TypeVar("Sample")
Sample_co = TypeVar("Sample_co", covariant=True)

PREFETCHED_BATCHES_PER_WORKER = 4
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal to get when the parent ends


class EpochSet(Protocol[Sample_co]):
    """A dataset whose samples are functions of (epoch, index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Sample_co: ...


class JoinedSets(Dataset[Sample]):
    """Several sets, one after the other, as a single one indexed by ``(epoch, index)``."""

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


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An InputError as data: PyTorch would wrap one raised in a worker in a traceback."""

    message: str


@dataclass(frozen=True, slots=True)
class _BatchReader(Dataset[Any]):
    """Whole batches by the keys of their samples; runs in the workers."""

    dataset: Any
    collate: Callable[[list[Any]], Any]

    def __getitem__(self, keys: list[Any]) -> Any:
        try:
            return self.collate([self.dataset[key] for key in keys])
        except InputError as error:
            return _Refusal(str(error))


class _BatchLoader(DataLoader[Any]):
    """Starts workers that share memory, and raises the users' mistakes that they meet."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # narrower in PyTorch's stubs
        # Workers are forked here. Their garbage collectors would write to every object they look
        # at, and so copy the memory of long annotation lists into each worker; frozen ones are left
        # alone. The caller's own collector goes on as before.
        gc.freeze()
        try:
            batches = super().__iter__()
        finally:
            gc.unfreeze()
        atexit.unregister(_end_workers)  # once for all loaders
        atexit.register(_end_workers)
        for batch in batches:
            if isinstance(batch, _Refusal):
                raise InputError(batch.message)
            yield batch


def make_loader(
    dataset: Any,
    *,
    batches: Iterable[list[Any]],
    collate: Callable[[list[Any]], Any],
    num_workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    """Build a loader that yields ``collate([dataset[key] for key in batch])`` for each batch.

    With workers, batches are read ahead in their order; the workers live as long as the loader. An
    InputError reaches the caller as it was raised, from wherever.
    """
    return _BatchLoader(
        _BatchReader(dataset, collate),
        sampler=batches,
        batch_size=None,  # the reader makes the batches
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_prepare_worker if num_workers else None,
        persistent_workers=num_workers > 0,
        prefetch_factor=PREFETCHED_BATCHES_PER_WORKER if num_workers else None,
        # Its own: starting an iteration draws a number, which would shift those of the training.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _prepare_worker(_worker: int) -> None:
    """One thread per worker: more would fight over the cores the training itself needs.

    SIGTERM is for the process that reads the batches, which ends when it has finished with them;
    launchers send it to the whole process group. A worker ends when that process does, and at once:
    it holds that process's connections open, and other ranks wait until they are closed.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _end_workers() -> None:
    """End the workers of loaders that are still there at exit.

    Python would send them SIGTERM, to which they are deaf, and wait for them.
    """
    workers = [child for child in multiprocessing.active_children() if child.daemon]
    if workers:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where PyTorch would raise at their end
    for worker in workers:
        worker.kill()
