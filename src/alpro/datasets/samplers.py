"""The order in which examples are read, by one number of processes after another.

Shapes: ``N`` examples of an epoch, ``M`` examples that are left of it, ``P`` processes, ``K``
examples that each process gets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, count, islice
from typing import NamedTuple, Self

import numpy as np


class SamplerSegment(NamedTuple):
    """Part of a run's training with one number of processes."""

    num_processes: int
    num_batches: int
    """Batches that each of them has read."""


def merge_segments(stretches: Iterable[SamplerSegment]) -> list[SamplerSegment]:
    """The stretches without empty ones; those of one number that follow each other are joined."""
    found: list[SamplerSegment] = []
    for stretch in stretches:
        num_processes, num_batches = stretch
        if num_processes < 1 or num_batches < 0:
            raise ValueError(f"no stretch of {num_batches} batches with {num_processes} processes")
        if found and found[-1].num_processes == num_processes:
            found[-1] = SamplerSegment(num_processes, found[-1].num_batches + num_batches)
        elif num_batches:
            found.append(stretch)
    return found


class _Place(NamedTuple):
    """Where some processes are in an epoch."""

    epoch: int
    dealt: np.ndarray | None
    """(M,) Examples that were left of the epoch when they began; None: all."""
    num_batches: int
    """Batches of these that each process has read."""


class ResumableBatchSampler:
    """Endless batches of ``(epoch, index)`` for one of ``size`` processes.

    Each epoch is a permutation of its own, the same in all processes, padded by repetition to a
    multiple of ``size`` and dealt out in turn. The last batch of an epoch may be smaller. A sampler
    that resumes reads what the interrupted one would have read. Where the number of processes has
    changed, what nobody has read of the epoch is dealt out again, in the order of the permutation.

    With a ``block_size`` above 1, blocks of that many consecutive examples are shuffled and dealt
    out instead of single ones: examples that stand together in the annotations, because they are
    easily mistaken for each other, meet in a batch and become each other's negatives. When they are
    dealt out again, the rest of blocks of which something has been read comes last.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        rank: int,
        size: int,
        seed: int,
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
        self.block_size = block_size
        self.done: list[SamplerSegment] = []

    def resume(self, done: Sequence[SamplerSegment]) -> Self:
        """Return a sampler that begins after what these segments have read."""
        resumed = copy.copy(self)
        resumed.done = merge_segments(done)
        return resumed

    @property
    def examples_per_epoch(self) -> int:
        """Examples that each process gets in an epoch."""
        return self._examples_per_epoch(self.size)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that each process gets in an epoch."""
        return self._num_batches(self.examples_per_epoch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, left, first = self._start()
        while True:
            own = self._shares(epoch, left, self.size)[self.rank].copy()  # not a view of all
            for start in range(first * self.batch_size, len(own), self.batch_size):
                yield [(epoch, index) for index in own[start : start + self.batch_size].tolist()]
            epoch, left, first = epoch + 1, None, 0

    def _start(self) -> _Place:
        """Where this number of processes goes on."""
        stretches = [*self.done]
        if not stretches or stretches[-1].num_processes != self.size:
            stretches.append(SamplerSegment(self.size, 0))
        epoch, left = 0, None
        for stretch in stretches[:-1]:
            end = self._end(epoch, left, stretch)
            epoch, left = self._left_at(end, stretch.num_processes)
        return self._end(epoch, left, stretches[-1])

    def _end(self, epoch: int, left: np.ndarray | None, stretch: SamplerSegment) -> _Place:
        """Where a stretch ends that begins with what is left of an epoch."""
        size, num_batches = stretch
        if left is not None:
            num_left = self._num_batches(-(-len(left) // size))
            if num_batches < num_left:
                return _Place(epoch, left, num_batches)
            epoch, num_batches = epoch + 1, num_batches - num_left
        num_epochs, num_batches = divmod(
            num_batches, self._num_batches(self._examples_per_epoch(size))
        )
        return _Place(epoch + num_epochs, None, num_batches)

    def _left_at(self, place: _Place, size: int) -> tuple[int, np.ndarray | None]:
        """The epoch and (M,) what none of ``size`` processes has read of it; None: all is left."""
        epoch, dealt, num_batches = place
        if num_batches == 0:
            return epoch, dealt
        read = np.zeros(self.num_examples, dtype=bool)
        read[self._shares(epoch, dealt, size)[:, : num_batches * self.batch_size]] = True
        order = self._order(epoch) if dealt is None else dealt
        left = order[~read[order]]
        return (epoch, self._whole_blocks_first(left)) if len(left) else (epoch + 1, None)

    def _shares(self, epoch: int, left: np.ndarray | None, size: int) -> np.ndarray:
        """(P, K) The examples of each process; of a whole epoch or of what is left of one."""
        if left is None:
            blocks = self._blocks(epoch)
            padded = np.resize(blocks, -(-len(blocks) // size) * size)  # wraps around
            left = self._examples(padded) % self.num_examples
        each = -(-len(left) // size)
        padded = np.resize(left, each * size)
        in_blocks = each // self.block_size * self.block_size
        turns, rest = padded[: in_blocks * size], padded[in_blocks * size :]
        shares = turns.reshape(-1, size, self.block_size).swapaxes(0, 1).reshape(size, in_blocks)
        return np.concatenate([shares, rest.reshape(size, -1)], axis=1)

    def _order(self, epoch: int) -> np.ndarray:
        """(N,) All examples, block by block."""
        examples = self._examples(self._blocks(epoch))
        return examples[examples < self.num_examples]

    def _whole_blocks_first(self, examples: np.ndarray) -> np.ndarray:
        """The same examples, those whose block is not whole at the end."""
        blocks = examples // self.block_size
        is_whole = np.bincount(blocks)[blocks] == self.block_size
        return np.concatenate([examples[is_whole], examples[~is_whole]])

    def _examples(self, blocks: np.ndarray) -> np.ndarray:
        """Numbers of the examples of blocks; the last block goes on beyond the last example."""
        return (blocks[:, None] * self.block_size + np.arange(self.block_size)).ravel()

    def _blocks(self, epoch: int) -> np.ndarray:
        """All blocks in the epoch's order."""
        return np.random.default_rng([self.seed, epoch]).permutation(self._num_blocks)

    @property
    def _num_blocks(self) -> int:
        return -(-self.num_examples // self.block_size)

    def _examples_per_epoch(self, size: int) -> int:
        return -(-self._num_blocks // size) * self.block_size

    def _num_batches(self, num_examples: int) -> int:
        return -(-num_examples // self.batch_size)


# Tells the generators of the sources drawn, [seed, block, stream], from those of the orders,
# [seed, epoch]: numpy extends short seeds by zeros, and this is not 0. Not from all others: that of
# block b is the one that samples the frames of example 65536 in epoch b. This does no harm, as what
# the two numbers decide has nothing to do with each other.
_MIXING_STREAM = 1 << 16
_DRAWS = 4096  # that one generator gives: a run that is resumed skips as many at a time


class MixtureBatchSampler:
    """Endless batches of ``(epoch, index)``, each from one of several sources.

    An index counts through the sources in turn, as `ConcatDataset` does; an epoch counts
    how often its source has been read. A source is drawn for each window of consecutive batches,
    the same in all processes; batches are those of `ResumableBatchSampler`, from its last window
    ended. The draws go on where a run resumes, whatever the number of processes.
    """

    def __init__(
        self,
        sources: Sequence[ResumableBatchSampler],
        *,
        weights: Sequence[float] | None = None,
        window: int = 1,
    ) -> None:
        """Lay out the sources.

        Args:
            sources: Orders of the sources' batches, of one seed.
            weights: Of the sources; they are drawn in this proportion, whatever their sizes. None:
                all alike.
            window: Batches that come from one source before the next is drawn.
        """
        weights = [1.0] * len(sources) if weights is None else weights
        if not sources or len(weights) != len(sources) or min(weights) <= 0 or window < 1:
            raise ValueError(
                f"no windows of {window} batches from {len(sources)} sources with the weights "
                f"{list(weights)}"
            )
        self._window = window
        self._seed = sources[0].seed
        shares = np.cumsum(weights)
        self._shares = shares / shares[-1]  # the last is 1 exactly, above all draws
        self._begins = [0, *accumulate(source.num_examples for source in sources)][:-1]
        self._first_window = 0
        self._sources = list(sources)

    def resume(self, done: Sequence[SamplerSegment]) -> Self:
        """Return a sampler that begins after the windows that these segments have read."""
        if any(segment.num_batches % self._window for segment in done):
            raise ValueError(f"not all of {list(done)} end with a window of {self._window} batches")
        resumed = copy.copy(self)
        resumed._first_window = sum(segment.num_batches for segment in done) // self._window
        shares = zip(self._sources, self._done_by_source(done), strict=True)
        resumed._sources = [source.resume(read) for source, read in shares]
        return resumed

    @property
    def examples_per_epoch(self) -> int:
        """Examples that each process would get of all sources, read once each."""
        return sum(source.examples_per_epoch for source in self._sources)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that each process would get of all sources, read once each."""
        return sum(source.batches_per_epoch for source in self._sources)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = [iter(source) for source in self._sources]
        for current in self._draws_from(self._first_window):
            begin = self._begins[current]
            for keys in islice(batches[current], self._window):
                yield [(epoch, begin + index) for epoch, index in keys]

    def _done_by_source(self, done: Sequence[SamplerSegment]) -> list[list[SamplerSegment]]:
        """What has been read of each source."""
        stretches = merge_segments(done)
        ends = [0, *accumulate(stretch.num_batches // self._window for stretch in stretches)]
        num_windows = np.diff([self._windows_before(end) for end in ends], axis=0)
        return [
            [
                SamplerSegment(stretch.num_processes, num * self._window)
                for stretch, num in zip(stretches, of_source, strict=True)
            ]
            for of_source in num_windows.T.tolist()
        ]

    def _windows_before(self, window: int) -> np.ndarray:
        """How many of the windows before this one each source has got."""
        counts = np.zeros(len(self._sources), dtype=np.int64)
        block, within = divmod(window, _DRAWS)
        for earlier in range(block):
            counts += self._count(self._draws(earlier))
        return counts + self._count(self._draws(block)[:within])

    def _count(self, draws: np.ndarray) -> np.ndarray:
        return np.bincount(draws, minlength=len(self._sources))

    def _draws_from(self, window: int) -> Iterator[int]:
        """The sources of this window and all later ones."""
        block, within = divmod(window, _DRAWS)
        for later in count(block):
            yield from self._draws(later)[within:].tolist()
            within = 0

    def _draws(self, block: int) -> np.ndarray:
        """The sources (_DRAWS,) of a block of windows."""
        rng = np.random.default_rng([self._seed, block, _MIXING_STREAM])
        return np.searchsorted(self._shares, rng.random(_DRAWS), side="right")
