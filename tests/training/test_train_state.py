from __future__ import annotations

import json
from typing import Any

import pytest

from alpro.datasets.samplers import SamplerSegment
from alpro.training.train_state import (
    TrainState,
    describe_world_size_change,
    position_from,
    state_of_rank,
)


def test_updates_are_counted_with_what_was_read_for_them() -> None:
    position = TrainState(num_steps=9)
    for num_processes in (4, 4, 2):
        position.advance(num_processes=num_processes, num_batches=3)
    assert position.step == 3
    assert position.read == [SamplerSegment(4, 6), SamplerSegment(2, 3)]


def test_a_position_survives_being_written() -> None:
    position = TrainState(
        step=5,
        num_steps=9,
        best=0.25,
        is_complete=False,
        num_skipped=2,
        read=[SamplerSegment(2, 10)],
    )
    stored = json.loads(json.dumps(position.state_dict()))
    again = position_from(stored, num_steps=9)
    assert again == position
    again.advance(num_processes=2, num_batches=2)
    assert again.read == [SamplerSegment(2, 12)]


@pytest.mark.parametrize(
    ("step", "num_steps", "now", "expected"),
    [
        (2, 6, 12, 4),  # half as many processes
        (6, 12, 8, 4),
        (5, 6, 3, 2),  # 2.5: rather an update too many than one too few
        (6, 6, 4, 4),  # finished, and stays so
        (1, 6, 3, 1),  # 0.5: what has begun is not before its beginning
        (1, 3, 1_000_000, 333_333),
    ],
)
def test_a_run_goes_on_at_the_same_share_of_its_schedule(
    step: int, num_steps: int, now: int, expected: int
) -> None:
    stored = TrainState(step=step, num_steps=num_steps, read=[SamplerSegment(2, 5)]).state_dict()
    position = position_from(stored, num_steps=now)
    assert (position.step, position.num_steps) == (expected, now)
    assert position.read == [SamplerSegment(2, 5)]


@pytest.mark.parametrize(
    ("name", "values", "kept"),
    [
        ("r1", [0.0, 2.0, 1.0, 2.0, 3.0], [0.0, 2.0, 3.0]),
        ("loss", [2.0, 3.0, 1.0], [2.0, 1.0]),
        ("text2video_medianR", [2.0, 3.0, 1.0], [2.0, 1.0]),
        ("r1", [float("nan"), float("inf"), 1.0, float("nan")], ["nan", 1.0]),
    ],
)
def test_the_best_value_so_far(name: str, values: list[float], kept: list[Any]) -> None:
    position = TrainState(num_steps=9)
    found = [value for value in values if position.update_best(value, name=name)]
    assert [value if value == value else "nan" for value in found] == kept
    assert position.best == kept[-1]


def stored_by(size: int) -> list[dict[str, Any]]:
    return [
        {"random": f"generator {rank}", "ledger": {"total": 10**rank, "listed": rank}}
        for rank in range(size)
    ]


@pytest.mark.parametrize("size", [3, 5])
def test_ranks_go_on_with_what_they_have_stored(size: int) -> None:
    ranks = stored_by(3)
    found = [state_of_rank(ranks, rank=rank, size=size) for rank in range(size)]
    assert found == [*ranks, *[None] * (size - 3)]


@pytest.mark.parametrize(("size", "total"), [(1, 1111), (2, 1101), (3, 1001)])
def test_nothing_that_was_counted_is_lost_with_ranks_that_go(size: int, total: int) -> None:
    ranks = stored_by(4)
    found = [state_of_rank(ranks, rank=rank, size=size) for rank in range(size)]
    assert found[0] == {"random": "generator 0", "ledger": {"total": total, "listed": 0}}
    assert found[1:] == ranks[1:size]
    assert sum(one["ledger"]["total"] for one in found if one) == 1111
    assert ranks == stored_by(4)


def test_the_user_is_told_of_another_number_of_processes() -> None:
    stored = TrainState(step=2, num_steps=6, read=[SamplerSegment(4, 2)]).state_dict()
    message = describe_world_size_change(
        stored, position_from(stored, num_steps=24), before=4, now=1
    )
    assert message == (
        "the run goes on with 1 process instead of 4 processes: at the same place in the data, but "
        "in another order, so its numbers will not be those of a run without the change; update 2 "
        "of 6 has become 8 of 24"
    )
