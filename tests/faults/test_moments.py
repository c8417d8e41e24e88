"""What the harness takes as a problem; how the runs themselves end is for the harness."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.moments import NUM_TIMES, NUM_UPDATES, Moment, Outcome, draw_moments, problems
from tests.faults.points import POINTS


def judge(engine: str = "torch", **changes: Any) -> list[str]:
    """A kill or a SIGTERM in update 10, of which the restore file of update 8 is left."""
    of_moment = {key: changes.pop(key) for key in ("action", "rank", "point") if key in changes}
    moment = Moment(**{"action": "kill", "rank": 1, **of_moment})
    in_order = {"code": 0, "ends": {0: 0, 1: 0}, "in_hand": {1: 10}, "went_on": 10}
    killed = {"code": 1, "ends": {0: 1}, "in_hand": {0: 10}, "went_on": 8}
    usual = {"kill": killed, "term": in_order}[moment.action]
    start = {"engine": engine, "size": 2, "struck": True, "reached": 10}
    return problems(moment, Outcome(**{**start, **usual, **changes}))


@pytest.mark.parametrize("action", ["kill", "term"])
def test_a_missing_event_is_a_problem(action: str) -> None:
    assert judge(action=action) == []
    assert judge(action=action, struck=False) == ["not struck"]


def test_a_launcher_must_report_a_kill() -> None:
    assert judge(code=0) == ["exit 0 after SIGKILL"]
    assert judge(code=-9) == []


@pytest.mark.parametrize(("reached", "went_on"), [(0, 0), (4, 0), (4, 4), (5, 4), (40, 36)])
def test_a_killed_run_resumes_from_its_last_save(reached: int, went_on: int) -> None:
    assert judge(reached=reached, went_on=went_on) == []


@pytest.mark.parametrize(
    ("reached", "went_on", "saved"), [(5, 0, 4), (9, 4, 8), (10, 12, 8), (40, 0, 36)]
)
def test_after_a_kill_nothing_else_is_lost(reached: int, went_on: int, saved: int) -> None:
    found = judge(reached=reached, went_on=went_on)
    assert found == [f"went on after {went_on}, saved was {saved}"]


@pytest.mark.parametrize("point", ["", "step", "stepped", "validation", "written restore"])
def test_sigterm_saves_the_update_in_hand_or_after_the_vote_the_next(point: str) -> None:
    assert judge(action="term", point=point, went_on=10) == []
    assert judge(action="term", point=point, went_on=11) == []
    for went_on in (9, 12, NUM_UPDATES):
        found = judge(action="term", point=point, went_on=went_on)
        assert found == [f"went on after {went_on} instead of 10 or 11"]


@pytest.mark.parametrize("point", ["update", "forward", "backward"])
def test_sigterm_before_the_vote_saves_the_update_in_hand(point: str) -> None:
    assert judge(action="term", point=point, in_hand={0: 9, 1: 10}) == []
    found = judge(action="term", point=point, went_on=11)
    assert found == ["went on after 11 instead of 10"]


def test_sigterm_in_the_last_update_ends_the_run() -> None:
    assert judge(action="term", in_hand={1: NUM_UPDATES}, went_on=NUM_UPDATES) == []


def test_after_sigterm_every_process_ends_in_order() -> None:
    assert judge(action="term", code=1) == ["exit 1 after SIGTERM"]
    assert judge(action="term", ends={0: 1, 1: 0}) == ["rank 0 ended with 1 after SIGTERM"]
    assert judge(action="term", ends={0: 0}) == ["rank 1 did not end by itself after SIGTERM"]
    assert judge(action="term", in_hand={}) == ["SIGTERM reached no rank"]


def test_launchers_that_get_sigterm_themselves_end_in_their_own_way() -> None:
    assert judge(action="term", rank=None, code=1) == []
    assert judge("horovod", action="term", rank=None, code=1, ends={}) == []
    assert judge("horovod", action="term", rank=None, ends={}, went_on=8) != []
    assert judge("single", action="term", rank=None, code=1) == ["exit 1 after SIGTERM"]


def test_moments_come_as_often_as_runs_reach_them() -> None:
    assert {"", *POINTS} == set(NUM_TIMES)
    moments = list(draw_moments(200, size=2, seed=3, points=True))
    assert [moment.point for moment in moments[: len(POINTS)]] == list(POINTS)
    assert all(1 <= moment.time <= NUM_TIMES[moment.point] for moment in moments)
    assert moments == list(draw_moments(200, size=2, seed=3, points=True))
