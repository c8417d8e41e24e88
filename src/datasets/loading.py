"""The order in which examples are read, and the loader that reads them ahead of time."""

from __future__ import annotations

import gc
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from src.errors import InputError

Sample = TypeVar("Sample")
Sample_co = TypeVar("Sample_co", covariant=True)

_PREFETCHED_BATCHES_PER_WORKER = 4


class EpochSet(Protocol[Sample_co]):
    """A dataset whose samples are functions of (epoch, index)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: tuple[int, int]) -> Sample_co: ...


class EpochBatches:
    """Endless batches of ``(epoch, index)`` for one of ``size`` processes.

    Each epoch is a permutation of its own, the same in all processes, padded by repetition to a
    multiple of ``size`` and dealt out in turn. The last batch of an epoch may be smaller. Iteration
    begins at batch ``start_batch`` counted from the start of training, so that a resumed run reads
    what the interrupted one would have read.

    With a ``block_size`` above 1, blocks of that many consecutive examples are shuffled and dealt
    out instead of single ones: examples that stand together in the annotations, because they are
    easily mistaken for each other, meet in a batch and become each other's negatives.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        rank: int,
        size: int,
        seed: int,
        start_batch: int = 0,
        block_size: int = 1,
    ) -> None:
        if num_examples < 1 or batch_size < 1 or not 0 <= rank < size:
            raise ValueError(
                f"no batches of {batch_size} out of {num_examples} examples for process {rank} "
                f"of {size}"
            )
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.rank = rank
        self.size = size
        self.seed = seed
        self.start_batch = start_batch
        self.block_size = block_size

    @property
    def examples_per_epoch(self) -> int:
        """Examples that each process gets in an epoch."""
        blocks = -(-self.num_examples // self.block_size)
        return -(-blocks // self.size) * self.block_size

    @property
    def batches_per_epoch(self) -> int:
        """Batches that each process gets in an epoch."""
        return -(-self.examples_per_epoch // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.starting_at(self.start_batch)

    def starting_at(self, batch: int) -> Iterator[list[tuple[int, int]]]:
        """The batches from this one on, counted from the start of training."""
        epoch, first = divmod(batch, self.batches_per_epoch)
        while True:
            own = self._own_examples(epoch)
            for start in range(first * self.batch_size, len(own), self.batch_size):
                yield [(epoch, index) for index in own[start : start + self.batch_size].tolist()]
            epoch, first = epoch + 1, 0

    def _own_examples(self, epoch: int) -> np.ndarray:
        num_blocks = -(-self.num_examples // self.block_size)
        blocks = np.random.default_rng([self.seed, epoch]).permutation(num_blocks)
        padded = np.resize(blocks, -(-num_blocks // self.size) * self.size)  # wraps around
        own = padded[self.rank :: self.size, None] * self.block_size + np.arange(self.block_size)
        return (own % self.num_examples).ravel()


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
        prefetch_factor=_PREFETCHED_BATCHES_PER_WORKER if num_workers else None,
        # Its own: starting an iteration draws a number, which would shift those of the training.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _prepare_worker(_worker: int) -> None:
    """One thread per worker: more would fight over the cores the training itself needs."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
