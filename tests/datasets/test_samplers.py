from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest

from alpro.datasets.batch_samplers import ResumableBatchSampler, SamplerSegment

Key = tuple[int, int]


def _batches(
    num_examples: int,
    *,
    batch_size: int,
    rank: int = 0,
    size: int = 1,
    done: Sequence[SamplerSegment] = (),
    block_size: int = 1,
) -> ResumableBatchSampler:
    return ResumableBatchSampler(
        num_examples,
        batch_size=batch_size,
        rank=rank,
        size=size,
        seed=5,
        block_size=block_size,
    ).resume(done)


def _epochs(batches: ResumableBatchSampler, count: int) -> list[list[Key]]:
    taken = list(islice(batches, count * batches.batches_per_epoch))
    per_epoch = np.array_split(np.arange(len(taken)), count)
    return [[key for position in part for key in taken[position]] for part in per_epoch]


def test_each_epoch_is_another_permutation_with_its_partial_batch() -> None:
    batches = _batches(10, batch_size=4)
    assert batches.batches_per_epoch == 3
    assert [len(batch) for batch in islice(batches, 6)] == [4, 4, 2, 4, 4, 2]
    first, second = _epochs(batches, 2)
    assert {epoch for epoch, _ in first} == {0}
    assert {epoch for epoch, _ in second} == {1}
    orders = [[index for _, index in epoch] for epoch in (first, second)]
    assert orders[0] != orders[1]
    assert all(sorted(order) == list(range(10)) for order in orders)


@pytest.mark.parametrize(("num_examples", "size"), [(10, 3), (12, 3), (2, 5), (1, 4)])
def test_processes_share_an_epoch_evenly(num_examples: int, size: int) -> None:
    shards = [
        _epochs(_batches(num_examples, batch_size=2, rank=rank, size=size), 1)[0]
        for rank in range(size)
    ]
    assert len({len(shard) for shard in shards}) == 1
    seen = [index for shard in shards for _, index in shard]
    assert set(seen) == set(range(num_examples))
    assert len(seen) - num_examples < size


def test_processes_deal_out_one_order() -> None:
    whole = [index for _, index in _epochs(_batches(12, batch_size=4), 1)[0]]
    for rank in range(2):
        shard = _epochs(_batches(12, batch_size=4, rank=rank, size=2), 1)[0]
        assert [index for _, index in shard] == whole[rank::2]


@pytest.mark.parametrize("start", [0, 1, 2, 3, 7, 100])
def test_a_resumed_run_reads_what_the_interrupted_one_would_have(start: int) -> None:
    whole = list(islice(_batches(10, batch_size=4, rank=1, size=2), 110))
    resumed = _batches(10, batch_size=4, rank=1, size=2, done=[SamplerSegment(2, start)])
    assert list(islice(resumed, 10)) == whole[start : start + 10]


def _blocks(keys: list[Key], block_size: int) -> list[list[int]]:
    """Indices in the order of reading, cut where blocks end."""
    indices = [index for _, index in keys]
    return [indices[start : start + block_size] for start in range(0, len(indices), block_size)]


def test_blocks_stay_together_and_cover_each_epoch_once() -> None:
    epochs = _epochs(_batches(24, batch_size=6, block_size=3), 2)
    orders = [_blocks(epoch, 3) for epoch in epochs]
    for blocks in orders:
        assert all(block == list(range(block[0], block[0] + 3)) for block in blocks)
        assert sorted(block[0] for block in blocks) == list(range(0, 24, 3))
    assert orders[0] != orders[1]


def test_two_processes_get_different_blocks() -> None:
    shards = [
        _epochs(_batches(24, batch_size=6, block_size=3, rank=rank, size=2), 1)[0]
        for rank in range(2)
    ]
    starts = [{block[0] for block in _blocks(shard, 3)} for shard in shards]
    assert starts[0].isdisjoint(starts[1])
    assert starts[0] | starts[1] == set(range(0, 24, 3))


@pytest.mark.parametrize(("num_examples", "size"), [(10, 1), (10, 2), (7, 3), (2, 2)])
def test_blocks_that_do_not_divide_evenly_lose_nothing(num_examples: int, size: int) -> None:
    batches = [
        _batches(num_examples, batch_size=4, block_size=4, rank=rank, size=size)
        for rank in range(size)
    ]
    shards = [_epochs(one, 1)[0] for one in batches]
    assert {len(shard) for shard in shards} == {batches[0].examples_per_epoch}
    assert {index for shard in shards for _, index in shard} == set(range(num_examples))


def test_blocks_of_one_are_the_plain_order() -> None:
    epochs = _epochs(_batches(10, batch_size=4, rank=1, size=2, block_size=1), 3)
    for number, epoch in enumerate(epochs):
        order = np.random.default_rng([5, number]).permutation(10)
        assert epoch == [(number, index) for index in order[1::2].tolist()]


@pytest.mark.parametrize("start", [1, 4, 7])
def test_blocks_resume_anywhere(start: int) -> None:
    whole = list(islice(_batches(22, batch_size=4, rank=1, size=2, block_size=3), 20))
    resumed = _batches(
        22, batch_size=4, rank=1, size=2, block_size=3, done=[SamplerSegment(2, start)]
    )
    assert list(islice(resumed, 5)) == whole[start : start + 5]


def test_empty_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="0 examples"):
        _batches(0, batch_size=4)
