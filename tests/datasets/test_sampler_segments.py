"""Orders of a run whose number of processes changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest

from alpro.datasets.batch_samplers import ResumableBatchSampler, SamplerSegment, merge_segments

Key = tuple[int, int]
Read = list[list[Key]]
"""The batches of a process."""

SEED = 5
HISTORIES = (
    *([(2, 3), (1, 9)], [(1, 3), (2, 9)], [(2, 3), (3, 12)], [(3, 2), (2, 11), (3, 9)]),
    [(4, 1), (3, 1), (2, 2), (1, 3), (5, 1), (2, 12)],  # all but the last in one epoch
    [(2, 9), (5, 2), (3, 40), (1, 7), (4, 1), (2, 30)],
    [(1, 26), (3, 1), (2, 5)],  # a change at the end of the first epoch of 101 by 4
    [(7, 3), (1, 4), (6, 6)],
)


def segments(history: Sequence[tuple[int, int]]) -> list[SamplerSegment]:
    return [SamplerSegment(*numbers) for numbers in history]


def order(
    num_examples: int,
    *,
    rank: int = 0,
    size: int = 1,
    done: Sequence[SamplerSegment] = (),
    **options: Any,
) -> ResumableBatchSampler:
    arguments = {"batch_size": 4, "seed": SEED, **options}
    return ResumableBatchSampler(num_examples, rank=rank, size=size, **arguments).resume(done)


def read_by_all(
    num_examples: int, history: Sequence[SamplerSegment], **options: Any
) -> list[list[Read]]:
    """What each process reads in each segment, when every segment begins with a new run."""
    return [
        [
            list(
                islice(
                    order(num_examples, rank=rank, size=size, done=history[:number], **options),
                    num_batches,
                )
            )
            for rank in range(size)
        ]
        for number, (size, num_batches) in enumerate(history)
    ]


def shuffled(num_examples: int, epoch: int) -> list[int]:
    return np.random.default_rng([SEED, epoch]).permutation(num_examples).tolist()


def deal(cards: Sequence[int], size: int) -> list[list[int]]:
    hands: list[list[int]] = [[] for _ in range(size)]
    for turn, card in enumerate(cycle(cards)):
        if turn >= len(cards) and turn % size == 0:
            return hands
        hands[turn % size].append(card)
    raise AssertionError


def read_by_hand(num_examples: int, history: Sequence[SamplerSegment]) -> Iterator[list[Read]]:
    """The same, an example at a time, for batches of 4."""
    epoch, unread = 0, shuffled(num_examples, 0)
    for size, num_batches in history:
        hands, reads = deal(unread, size), [Read() for _ in range(size)]
        for _ in range(num_batches):
            if not hands[0]:
                epoch, unread = epoch + 1, shuffled(num_examples, epoch + 1)
                hands = deal(unread, size)
            for hand, read in zip(hands, reads, strict=True):
                read.append([(epoch, card) for card in hand[:4]])
                unread = [card for card in unread if card not in hand[:4]]
                del hand[:4]
        if not unread:
            epoch, unread = epoch + 1, shuffled(num_examples, epoch + 1)
        yield reads


@pytest.mark.parametrize("num_examples", [3, 50, 101])
@pytest.mark.parametrize("numbers", HISTORIES)
def test_unread_examples_are_dealt_out_again(
    numbers: list[tuple[int, int]], num_examples: int
) -> None:
    history = segments(numbers)
    expected = list(read_by_hand(num_examples, history))
    assert read_by_all(num_examples, history) == expected


@pytest.mark.parametrize("block_size", [1, 2, 3])
@pytest.mark.parametrize("numbers", HISTORIES)
def test_no_example_of_an_epoch_is_lost_or_repeated_but_for_padding(
    numbers: list[tuple[int, int]], block_size: int
) -> None:
    *before, (size, num_batches) = segments(numbers)
    history = [*before, SamplerSegment(size, num_batches + 30)]
    reads = read_by_all(101, history, block_size=block_size)
    for segment in reads:
        assert len({tuple(map(len, read)) for read in segment}) == 1  # equally many in each batch
    times = Counter(key for segment in reads for read in segment for keys in read for key in keys)
    last = max(epoch for epoch, _ in times)
    # Whole blocks are repeated where an epoch begins, and the last goes on beyond the examples;
    # single examples are where it is dealt out again.
    padding = max(size for size, _ in history) * block_size - 1 + block_size - 1
    padding += sum(size - 1 for size, _ in history)
    assert last >= 1
    for epoch in range(last):
        of_epoch = [times[epoch, index] for index in range(101)]
        assert min(of_epoch) >= 1
        assert sum(of_epoch) <= 101 + padding


@pytest.mark.parametrize("block_size", [1, 3])
@pytest.mark.parametrize("numbers", HISTORIES)
@pytest.mark.parametrize("num_more", [0, 1, 2, 20])
def test_a_run_that_changed_resumes_as_if_never_interrupted(
    numbers: list[tuple[int, int]], block_size: int, num_more: int
) -> None:
    *before, (size, _) = segments(numbers)
    for rank in range(size):
        options = {"rank": rank, "size": size, "block_size": block_size}
        whole = islice(order(50, done=before, **options), num_more, num_more + 30)
        done = [*before, SamplerSegment(size, num_more)]
        assert list(islice(order(50, done=done, **options), 30)) == list(whole)


@pytest.mark.parametrize(
    "shares",
    [
        [[6, 7, 10, 11, 12, 13], [8, 9, 4, 5, 3, 6]],
        [[6, 7, 4, 5], [8, 9, 12, 13], [10, 11, 3, 6]],
        [[6, 7, 12], [8, 9, 13], [10, 11, 3], [4, 5, 6]],  # the last round is dealt one by one
    ],
)
def test_whole_blocks_stay_together(
    monkeypatch: pytest.MonkeyPatch, shares: list[list[int]]
) -> None:
    """Of the blocks 0, 1, 3, 4, 5, 2, 6 one process has read three examples."""
    blocks = np.array([0, 1, 3, 4, 5, 2, 6])
    monkeypatch.setattr(ResumableBatchSampler, "_blocks", lambda *_: blocks)
    options: dict[str, Any] = {"batch_size": 3, "block_size": 2}
    assert next(iter(order(14, **options))) == [(0, 0), (0, 1), (0, 2)]
    for rank, share in enumerate(shares):
        one = iter(order(14, rank=rank, size=len(shares), done=[SamplerSegment(1, 1)], **options))
        batches = [next(one) for _ in range(-(-len(share) // 3))]
        assert [key for keys in batches for key in keys] == [(0, index) for index in share]


def test_an_epoch_of_which_only_repetitions_are_left_is_over() -> None:
    """Two examples, in blocks of four: each process gets 0, 1, 0, 1."""
    options: dict[str, Any] = {"batch_size": 2, "block_size": 4}
    assert [next(iter(order(2, rank=rank, size=2, **options))) for rank in range(2)] == [
        [(0, 0), (0, 1)],
        [(0, 0), (0, 1)],
    ]
    assert next(iter(order(2, size=1, done=[SamplerSegment(2, 1)], **options))) == [(1, 0), (1, 1)]


def test_segments_of_one_number_of_processes_are_merged() -> None:
    parts = segments([(2, 0), (3, 2), (3, 1), (1, 0), (3, 4), (2, 1), (2, 2), (1, 0)])
    assert merge_segments(parts) == [(3, 7), (2, 3)]
    assert merge_segments([]) == []
    assert list(islice(order(50, size=2, done=parts), 20)) == list(
        islice(order(50, size=2, done=merge_segments(parts)), 20)
    )


@pytest.mark.parametrize("wrong", [(0, 1), (1, -1)])
def test_an_impossible_segment_is_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no segment of"):
        order(50, done=[SamplerSegment(*wrong)])


def test_a_long_run_of_many_epochs_is_not_walked_through() -> None:
    many = 10**15
    late = order(1000, size=5, done=segments([(2, many), (3, many), (4, many)]))
    (epoch, _), *_ = next(iter(late))
    assert epoch == pytest.approx(many * 4 * (2 + 3 + 4) / 1000, rel=0.01)


def test_an_order_can_be_read_twice() -> None:
    one = order(50, size=3, done=segments([(2, 3)]))
    assert list(islice(one, 20)) == list(islice(one, 20))
