"""The order in which batches are drawn from several sources."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from itertools import accumulate, count, islice
from typing import Self

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
