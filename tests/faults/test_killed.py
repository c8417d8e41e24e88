"""Runs that are killed, or asked to end, at named points, continue to the same numbers."""

from __future__ import annotations

import re

import pytest

from tests.faults.conftest import AllRuns, said_by
from tests.faults.points import POINTS, Fault

SIGKILL, SIGTERM = 9, 15
# Decoded are 3 videos in a validation, 4 in an update, and a validation comes after each 2.
TIMES = {"decode": 17, "forward": 6, "backward": 6, "update": 4, "step": 4, "stepped": 4}


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_any_point_ends_the_same(runs: AllRuns, point: str) -> None:
    alone, name = runs.of(1), f"killed at {point}"
    fault = Fault(point=point, action="kill", time=TIMES.get(point, 2), share=0.6)
    ended = alone.run(name, fault)
    assert [one.code for one in ended] == [-SIGKILL], said_by(ended)
    alone.continue_to_the_end(name)


@pytest.mark.parametrize("share", [0.0, 0.99])
def test_a_file_cut_short_anywhere_is_written_again(runs: AllRuns, share: float) -> None:
    alone, name = runs.of(1), f"cut at {share}"
    ended = alone.run(name, Fault(point="bytes of restore", action="kill", time=2, share=share))
    assert [one.code for one in ended] == [-SIGKILL]
    assert len(list((alone.root / name).rglob(".*.tmp"))) == 1
    alone.continue_to_the_end(name)


@pytest.mark.parametrize(
    ("size", "point", "action", "rank"),
    [
        (2, "backward", "kill", 1),
        (2, "bytes of restore", "kill all", None),
        (3, "validation", "kill", 2),
    ],
)
def test_one_rank_or_all_may_be_killed(
    runs: AllRuns, size: int, point: str, action: str, rank: int | None
) -> None:
    job, name = runs.of(size), f"{action} {rank} at {point}"
    time = TIMES.get(point, 2)
    ended = job.run(name, Fault(point=point, action=action, time=time, rank=rank, share=0.5))
    assert all(one.code for one in ended)
    assert -SIGKILL in [one.code for one in ended]
    job.continue_to_the_end(name)


@pytest.mark.parametrize(
    ("size", "point", "time", "action", "rank", "step"),
    [
        (1, "forward", 1, "term", 0, 1),
        (1, "stepped", 3, "term", 0, 4),  # in the loop, that is too late for update 3
        (2, "backward", 8, "term all", None, 4),  # an update after which a validation is due
        (3, "validation", 2, "term", 2, 2),  # the ranks agree once more after it
    ],
)
def test_sigterm_to_any_rank_saves_after_the_update_and_ends_in_order(
    runs: AllRuns, size: int, point: str, time: int, action: str, rank: int | None, step: int
) -> None:
    job, name = runs.of(size), f"{action} {rank} at {point}"
    ended = job.run(name, Fault(point=point, time=time, action=action, rank=rank))
    assert [one.code for one in ended] == [0] * size, said_by(ended)
    told = re.findall(r"stopped.*: SIGTERM came, update (\d) is saved", ended[0].said)
    assert told == [str(step)]
    assert f"after update {step}\n" in job.continue_to_the_end(name)


def test_a_run_may_be_killed_again_and_again(runs: AllRuns) -> None:
    alone, name = runs.of(1), "killed often"
    moments = [("update", 2), ("bytes of restore", 2), ("stepped", 2), ("validated", 2)]
    for point, time in [*moments, ("linked restore", 1), ("validation", 1)]:
        ended = alone.run(name, Fault(point=point, action="kill", time=time, share=0.5))
        assert [one.code for one in ended] == [-SIGKILL], point
    alone.continue_to_the_end(name)


def test_another_number_of_processes_goes_on_and_says_what_differs(runs: AllRuns) -> None:
    pair, name = runs.of(2), "fewer"
    pair.run(name, Fault(point="update", action="kill all", time=4))
    alone = type(pair).__new__(type(pair))
    alone.__dict__ = {**pair.__dict__, "size": 1}
    (ended,) = alone.run(name)
    assert ended.code == 0
    assert "goes on with 1 process instead of 2 processes" in ended.said
    assert "update 2 of 6 has become 4 of 12" in ended.said
    assert "update 12 of 12" in ended.said
