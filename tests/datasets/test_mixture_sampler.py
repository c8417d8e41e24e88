from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Any

import numpy as np
import pytest

from alpro.datasets.batch_samplers import MixtureBatchSampler, ResumableBatchSampler, SamplerSegment

Keys = list[tuple[int, int]]


def mixed(
    sizes: Sequence[int],
    *,
    weights: Sequence[float] | None = None,
    window: int = 1,
    done: Sequence[SamplerSegment] = (),
    **changes: Any,
) -> MixtureBatchSampler:
    arguments = {"batch_size": 3, "rank": 0, "size": 1, "seed": 5, **changes}
    sources = [ResumableBatchSampler(size, **arguments) for size in sizes]
    return MixtureBatchSampler(sources, weights=weights, window=window).resume(done)


def source_of(keys: Keys, sizes: Sequence[int]) -> int:
    """The one source that all of a batch are of."""
    (source,) = {bisect_right(list(accumulate(sizes)), index) for _, index in keys}
    return source


def sources_of(batches: MixtureBatchSampler, sizes: Sequence[int], *, count: int) -> list[int]:
    return [source_of(keys, sizes) for keys in islice(batches, count)]


@pytest.mark.parametrize(
    "done", [[], [SamplerSegment(2, 4)], [SamplerSegment(3, 8), SamplerSegment(2, 12)]]
)
@pytest.mark.parametrize("window", [1, 4])
def test_one_source_alone_is_read_as_ever(done: list[SamplerSegment], window: int) -> None:
    options: dict[str, Any] = {
        "batch_size": 3,
        "rank": 1,
        "size": 2,
        "seed": 5,
        "block_size": 2,
    }
    alone, one = (
        ResumableBatchSampler(23, **options).resume(done),
        mixed([23], window=window, done=done, **options),
    )
    assert list(islice(one, 30)) == list(islice(alone, 30))
    assert one.batches_per_epoch == alone.batches_per_epoch
    assert one.examples_per_epoch == alone.examples_per_epoch


def test_each_source_is_read_in_its_own_order_and_starts_again() -> None:
    sizes = (10, 4, 7)
    batches = list(islice(mixed(sizes, window=2), 120))
    for source, begin in enumerate((0, 10, 14)):
        own = [keys for keys in batches if source_of(keys, sizes) == source]
        order = ResumableBatchSampler(sizes[source], batch_size=3, rank=0, size=1, seed=5)
        assert len(own) > 20
        assert own == [
            [(epoch, begin + index) for epoch, index in keys] for keys in islice(order, len(own))
        ]


def test_a_window_stays_with_its_source() -> None:
    sizes = (10, 7)
    sources = sources_of(mixed(sizes, window=4), sizes, count=400)
    windows = [sources[start : start + 4] for start in range(0, 400, 4)]
    assert all(len(set(window)) == 1 for window in windows)
    firsts = [window[0] for window in windows]
    assert 30 <= sum(firsts) <= 70
    assert len(set(zip(firsts, firsts[1:], strict=False))) == 4  # drawn, not taken in turn


def test_sources_are_drawn_alike_whatever_their_sizes() -> None:
    sizes = (1000, 2)
    sources = sources_of(mixed(sizes), sizes, count=10_000)
    assert np.mean(sources) == pytest.approx(0.5, abs=0.02)


def test_sources_are_drawn_in_proportion_to_their_weights() -> None:
    sizes = (3, 3, 3)
    sources = sources_of(mixed(sizes, weights=[1.0, 0.5, 2.5]), sizes, count=10_000)
    shares = np.bincount(sources) / len(sources)
    assert shares == pytest.approx([0.25, 0.125, 0.625], abs=0.02)


def test_processes_read_the_same_source_and_different_examples() -> None:
    sizes = (40, 24)
    shards = [
        list(islice(mixed(sizes, rank=rank, size=2, window=2, batch_size=4), 40))
        for rank in range(2)
    ]
    for ours, theirs in zip(*shards, strict=True):
        assert source_of(ours, sizes) == source_of(theirs, sizes)
        assert set(ours).isdisjoint(theirs)
        assert len(ours) == len(theirs)


def test_seeds_draw_differently() -> None:
    first, other = (sources_of(mixed((9, 9), seed=seed), (9, 9), count=50) for seed in (5, 6))
    assert first != other


@pytest.mark.parametrize("windows", [0, 1, 2, 33, 4095, 4096, 9000])
def test_a_resumed_run_reads_what_the_interrupted_one_would_have(windows: int) -> None:
    sizes, start = (10, 4, 7), 3 * windows
    options: dict[str, Any] = {"window": 3, "weights": [3.0, 1.0, 2.0], "rank": 1, "size": 2}
    whole = islice(mixed(sizes, **options), start, start + 20)
    resumed = mixed(sizes, **options, done=[SamplerSegment(2, start)])
    assert list(islice(resumed, 20)) == list(whole)


def test_a_run_is_resumed_after_a_million_windows() -> None:
    late = mixed((1000, 1000), window=2, done=[SamplerSegment(1, 2_000_000)], batch_size=4)
    (epoch, _), *_ = next(iter(late))
    assert epoch == pytest.approx(2_000_000 / 500, rel=0.01)


@pytest.mark.parametrize("rank", range(3))
def test_with_another_number_of_processes_each_source_goes_on_where_it_was(rank: int) -> None:
    """The draws are those of a run that never changed; 5 windows, 1, 6, then those compared."""
    sizes, done = (40, 9, 21), [SamplerSegment(2, 10), SamplerSegment(1, 2), SamplerSegment(4, 12)]
    drawn = sources_of(mixed(sizes, window=2), sizes, count=24 + 200)
    found = list(islice(mixed(sizes, window=2, rank=rank, size=3, done=done), 200))
    assert [source_of(keys, sizes) for keys in found] == drawn[24:]
    parts = (drawn[:10], drawn[10:12], drawn[12:24])
    for source, begin in enumerate((0, 40, 49)):
        read = [
            SamplerSegment(num_processes, part.count(source))
            for (num_processes, _), part in zip(done, parts, strict=True)
        ]
        options: dict[str, Any] = {"batch_size": 3, "rank": rank, "size": 3, "seed": 5}
        own = [keys for keys in found if source_of(keys, sizes) == source]
        assert len(own) > 20
        alone = ResumableBatchSampler(sizes[source], **options).resume(read)
        assert own == [
            [(epoch, begin + index) for epoch, index in keys] for keys in islice(alone, len(own))
        ]


def test_the_number_of_processes_changes_between_windows() -> None:
    with pytest.raises(ValueError, match="end with a window of 3 batches"):
        mixed(
            (10, 4),
            window=3,
            done=[SamplerSegment(2, 3), SamplerSegment(1, 4), SamplerSegment(1, 2)],
        )


def test_an_epoch_is_that_of_all_sources() -> None:
    batches = mixed((10, 4, 7), rank=1, size=2)
    assert batches.examples_per_epoch == 5 + 2 + 4
    assert batches.batches_per_epoch == 2 + 1 + 2


@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        ([], {}),
        ([3, 4], {"weights": [1.0]}),
        ([3, 4], {"weights": [1.0, 0.0]}),
        ([3], {"window": 0}),
    ],
)
def test_empty_batches_are_refused(sizes: list[int], changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no windows"):
        mixed(sizes, **changes)
