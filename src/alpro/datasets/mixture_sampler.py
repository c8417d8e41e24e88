"""The order in which batches are drawn from several sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, count, islice

import numpy as np

from alpro.datasets.samplers import ResumableBatchSampler, SamplerSegment, merge_segments

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
    ended. Iteration begins after the windows that the stretches in ``done`` have read; the draws go
    on over all stretches, whatever their numbers of processes.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        weights: Sequence[float] | None = None,
        window: int = 1,
        batch_size: int,
        rank: int,
        size: int,
        seed: int,
        done: Sequence[SamplerSegment] = (),
        block_size: int = 1,
    ) -> None:
        """Lay out the sources.

        Args:
            sizes: Examples of each source.
            weights: Of the sources; they are drawn in this proportion, whatever their sizes. None:
                all alike.
            window: Batches that come from one source before the next is drawn.
            batch_size: Examples of a batch.
            rank: This process.
            size: Number of processes.
            seed: Of everything drawn.
            done: What has been read before; each stretch ends with a window.
            block_size: See `ResumableBatchSampler`.
        """
        weights = [1.0] * len(sizes) if weights is None else weights
        if not sizes or len(weights) != len(sizes) or min(weights) <= 0 or window < 1:
            raise ValueError(
                f"no windows of {window} batches from {len(sizes)} sources with the weights "
                f"{list(weights)}"
            )
        if any(stretch.num_batches % window for stretch in done):
            raise ValueError(f"not all of {list(done)} end with a window of {window} batches")
        self._window = window
        self._seed = seed
        shares = np.cumsum(weights)
        self._shares = shares / shares[-1]  # the last is 1 exactly, above all draws
        self._begins = [0, *accumulate(sizes)][:-1]
        self._num_sources = len(sizes)
        self._first_window = sum(stretch.num_batches for stretch in done) // window
        self._sources = [
            ResumableBatchSampler(
                num_examples,
                batch_size=batch_size,
                rank=rank,
                size=size,
                seed=seed,
                done=read,
                block_size=block_size,
            )
            for num_examples, read in zip(sizes, self._done_by_source(done), strict=True)
        ]

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
        counts = np.zeros(self._num_sources, dtype=np.int64)
        block, within = divmod(window, _DRAWS)
        for earlier in range(block):
            counts += self._count(self._draws(earlier))
        return counts + self._count(self._draws(block)[:within])

    def _count(self, draws: np.ndarray) -> np.ndarray:
        return np.bincount(draws, minlength=self._num_sources)

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
