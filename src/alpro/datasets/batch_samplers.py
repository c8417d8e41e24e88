"""Batch samplers that resume, even with another number of processes.

Shapes: ``N`` examples of an epoch, ``M`` unread examples of it, ``P`` processes, ``K`` examples of
each process.
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
    num_batches: int  # read by each process


def merge_segments(segments: Iterable[SamplerSegment]) -> list[SamplerSegment]:
    """Drop empty segments, and join consecutive ones with the same number of processes."""
    merged: list[SamplerSegment] = []
    for segment in segments:
        num_processes, num_batches = segment
        if num_processes < 1 or num_batches < 0:
            raise ValueError(f"no segment of {num_batches} batches with {num_processes} processes")
        if merged and merged[-1].num_processes == num_processes:
            merged[-1] = SamplerSegment(num_processes, merged[-1].num_batches + num_batches)
        elif num_batches:
            merged.append(segment)
    return merged


class _EpochPosition(NamedTuple):
    """Position of a number of processes in an epoch."""

    epoch: int
    dealt: np.ndarray | None  # (M,) examples that were unread at the segment's start; None: all
    num_batches: int  # read of these by each process


class ResumableBatchSampler:
    """Endless batches of ``(epoch, index)`` for one of ``size`` processes.

    Each epoch is a permutation of its own, the same in all processes, padded by repetition to a
    multiple of ``size`` and dealt out in turn. The last batch of an epoch may be smaller. A resumed
    sampler continues exactly. If the number of processes has changed, the unread examples of the
    epoch are dealt out again, in the order of the permutation.

    With a ``block_size`` above 1, blocks of that many consecutive examples are shuffled and dealt
    out: neighbours in the annotations, which are easily confused, become in-batch negatives. When
    they are dealt out again, the rest of partly read blocks comes last.
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
            request = f"batches of {batch_size} out of {num_examples} examples"
            raise ValueError(f"no {request} for process {rank} of {size}")
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.rank = rank
        self.size = size
        self.seed = seed
        self.block_size = block_size
        # Segments that earlier runs have read, see `resume`.
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

    def _start(self) -> _EpochPosition:
        """Position at which this number of processes continues."""
        segments = [*self.done]
        if not segments or segments[-1].num_processes != self.size:
            segments.append(SamplerSegment(self.size, 0))
        # Replay the segments: each deals out what those before have not read.
        epoch, left = 0, None
        for segment in segments[:-1]:
            end = self._end(epoch, left, segment)
            epoch, left = self._left_at(end, segment.num_processes)
        return self._end(epoch, left, segments[-1])

    def _end(self, epoch: int, left: np.ndarray | None, segment: SamplerSegment) -> _EpochPosition:
        """End of a segment that begins with the unread examples of an epoch."""
        size, num_batches = segment
        # Finish the begun epoch, then count whole ones.
        if left is not None:
            num_left = self._num_batches(-(-len(left) // size))
            if num_batches < num_left:
                return _EpochPosition(epoch, left, num_batches)
            epoch, num_batches = epoch + 1, num_batches - num_left
        per_epoch = self._num_batches(self._examples_per_epoch(size))
        return _EpochPosition(epoch + num_batches // per_epoch, None, num_batches % per_epoch)

    def _left_at(self, position: _EpochPosition, size: int) -> tuple[int, np.ndarray | None]:
        """The epoch and its (M,) examples that no process has read; None: all."""
        epoch, dealt, num_batches = position
        if num_batches == 0:
            return epoch, dealt
        # Mark what the processes have read, repeated examples included.
        read = np.zeros(self.num_examples, dtype=bool)
        read[self._shares(epoch, dealt, size)[:, : num_batches * self.batch_size]] = True
        order = self._order(epoch) if dealt is None else dealt
        left = order[~read[order]]
        return (epoch, self._whole_blocks_first(left)) if len(left) else (epoch + 1, None)

    def _shares(self, epoch: int, left: np.ndarray | None, size: int) -> np.ndarray:
        """(P, K) The examples of each process; of a whole epoch or of its unread ones."""
        # Pad a whole epoch by whole blocks, anything else by single examples.
        if left is None:
            blocks = self._blocks(epoch)
            padded = np.resize(blocks, -(-len(blocks) // size) * size)  # wraps around
            left = self._examples(padded) % self.num_examples
        each = -(-len(left) // size)
        # Deal out whole blocks in turn, then the rest one by one.
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
        """Sort the examples of partly read blocks to the end."""
        blocks = examples // self.block_size
        is_whole = np.bincount(blocks)[blocks] == self.block_size
        return np.concatenate([examples[is_whole], examples[~is_whole]])

    def _examples(self, blocks: np.ndarray) -> np.ndarray:
        # The last block may extend beyond the last example.
        return (blocks[:, None] * self.block_size + np.arange(self.block_size)).ravel()

    def _blocks(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self._num_blocks)

    @property
    def _num_blocks(self) -> int:
        return -(-self.num_examples // self.block_size)

    def _examples_per_epoch(self, size: int) -> int:
        return -(-self._num_blocks // size) * self.block_size

    def _num_batches(self, num_examples: int) -> int:
        return -(-num_examples // self.batch_size)


# Distinguishes the seeds of drawn sources, [seed, block, stream], from those of permutations,
# [seed, epoch], which numpy extends by zeros. The seed of block b is also that of the frames of
# example 65536 in epoch b, which is harmless: the two decisions are unrelated.
_MIXING_STREAM = 1 << 16
_DRAWS = 4096  # of one generator: a resumed run skips as many at a time


class MixtureBatchSampler:
    """Endless batches of ``(epoch, index)``, each from one of several sources.

    An index counts through the sources in turn, as in `ConcatDataset`; an epoch counts the passes
    over its source. A source is drawn for each window of consecutive batches, the same in all
    processes; it continues where its last window ended. Draws continue in a resumed run, whatever
    the number of processes.
    """

    def __init__(
        self,
        sources: Sequence[ResumableBatchSampler],
        *,
        weights: Sequence[float] | None = None,
        window: int = 1,
    ) -> None:
        """Set up the draws: in proportion to the weights (None: uniform), one per ``window``.

        All sources have the same seed.
        """
        weights = [1.0] * len(sources) if weights is None else weights
        if not sources or len(weights) != len(sources) or min(weights) <= 0 or window < 1:
            raise ValueError(
                f"no windows of {window} batches from {len(sources)} sources with the weights "
                f"{list(weights)}"
            )
        # A uniform draw falls into the interval of one source.
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
        """Examples that each process gets in one pass over all sources."""
        return sum(source.examples_per_epoch for source in self._sources)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that each process gets in one pass over all sources."""
        return sum(source.batches_per_epoch for source in self._sources)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = [iter(source) for source in self._sources]
        for current in self._draws_from(self._first_window):
            begin = self._begins[current]
            for keys in islice(batches[current], self._window):
                yield [(epoch, begin + index) for epoch, index in keys]

    def _done_by_source(self, done: Sequence[SamplerSegment]) -> list[list[SamplerSegment]]:
        # Count the windows of each source in each segment.
        segments = merge_segments(done)
        ends = [0, *accumulate(segment.num_batches // self._window for segment in segments)]
        num_windows = np.diff([self._windows_before(end) for end in ends], axis=0)
        return [
            [
                SamplerSegment(segment.num_processes, num * self._window)
                for segment, num in zip(segments, of_source, strict=True)
            ]
            for of_source in num_windows.T.tolist()
        ]

    def _windows_before(self, window: int) -> np.ndarray:
        """Count the windows before this one by source."""
        counts = np.zeros(len(self._sources), dtype=np.int64)
        block, within = divmod(window, _DRAWS)
        for earlier in range(block):
            counts += self._count(self._draws(earlier))
        return counts + self._count(self._draws(block)[:within])

    def _count(self, draws: np.ndarray) -> np.ndarray:
        return np.bincount(draws, minlength=len(self._sources))

    def _draws_from(self, window: int) -> Iterator[int]:
        """Draw the sources of this window and all later ones."""
        block, within = divmod(window, _DRAWS)
        for later in count(block):
            yield from self._draws(later)[within:].tolist()
            within = 0

    def _draws(self, block: int) -> np.ndarray:
        """The sources (_DRAWS,) of a block of windows."""
        rng = np.random.default_rng([self._seed, block, _MIXING_STREAM])
        return np.searchsorted(self._shares, rng.random(_DRAWS), side="right")
