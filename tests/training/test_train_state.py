"""Positions, and runs that resume as if nothing had interrupted them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.datasets.batch_samplers import SamplerSegment
from alpro.errors import InputError
from alpro.training.checkpoints import save_restore
from alpro.training.run_directory import RunDirectory
from alpro.training.train_state import (
    TrainState,
    describe_world_size_change,
    form_difference,
    position_from,
    state_of_rank,
)
from tests.training.toys import (
    KilledError,
    assert_same_run,
    kill_at_batch,
    make_plan,
    train,
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


Change = Callable[[dict[str, Any]], object]


def set_in(*keys: Any, value: Any) -> Change:
    """A change that sets an entry deep in a state."""

    def change(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


CHANGES: dict[str, Change] = {
    "it lacks model": lambda state: state.pop("model"),
    "it lacks ranks": lambda state: state.pop("ranks"),
    "position is list": set_in("position", value=[]),
    "position lacks step": lambda state: state["position"].pop("step"),
    "position.step is -1": set_in("position", "step", value=-1),
    "position.step is 'x'": set_in("position", "step", value="x"),
    "position.step is 99 of ": set_in("position", "step", value=99),
    "position is none": set_in("position", "num_steps", value=0),
    "position.read is int": set_in("position", "read", value=3),
    "num_lines is -3": set_in("num_lines", value=-3),
    "model is list": set_in("model", value=[1]),
    "optimizer.param_groups": set_in("optimizer", "param_groups", value=[]),
    "optimizer.state.999 is of no parameter": set_in("optimizer", "state", 999, value={}),
    "optimizer.state.0 is of another shape": set_in(
        "optimizer", "state", 0, value={"exp_avg": torch.zeros(77)}
    ),
    "engine is int": set_in("engine", value=3),
    "ranks is empty": set_in("ranks", value=[]),
    "ranks.0 is str": set_in("ranks", 0, value="x"),
    "ranks.0.random.cpu is torch.float32": set_in(
        "ranks", 0, "random", "cpu", value=torch.zeros(3)
    ),
    "ranks.0.ledger lacks total": lambda state: state["ranks"][0]["ledger"].pop("total"),
}


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The folder of a run that was killed, with restore files."""
    with pytest.raises(KilledError):
        train(tmp_path / "killed", plan=make_plan(), batch=kill_at_batch(6))
    return tmp_path / "killed"


@pytest.mark.parametrize("told", CHANGES)
def test_a_content_that_is_not_this_run_s_is_named(killed: Path, told: str) -> None:
    path = killed / "restore.pt"
    state = torch.load(path, weights_only=True)
    CHANGES[told](state)
    save_restore(RunDirectory(killed, rank=0), state)
    with pytest.raises(InputError) as caught:
        train(killed, plan=make_plan())
    assert f"{path}: this restore file is not one of this run: {told}" in str(caught.value)
    assert path.exists()


def test_another_shape_of_the_model_is_named(killed: Path) -> None:
    state = torch.load(killed / "restore.pt", weights_only=True)
    name = next(iter(state["model"]))
    state["model"][name] = torch.zeros(77)
    save_restore(RunDirectory(killed, rank=0), state)
    with pytest.raises(InputError, match=rf"model\.{name} is torch\.float32 \(77,\)\. Put it"):
        train(killed, plan=make_plan())


class Hostile:
    """An object whose pickle ends the process."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {**state, "extra": Hostile()},
        lambda state: {**state, "model": {"x": torch.eye(2).to_sparse()}},
        lambda state: {**state, "model": torch.zeros(1).expand(1 << 40)},
    ],
)
def test_a_content_that_cannot_be_read_gives_way_to_the_backup(
    tmp_path: Path, killed: Path, spoil: Callable[[dict[str, Any]], object]
) -> None:
    train(tmp_path / "whole", plan=make_plan())
    path = killed / "restore.pt"
    torch.save(spoil(torch.load(path, weights_only=True)), path)
    train(killed, plan=make_plan())
    assert (killed / "restore.damaged").exists()
    assert_same_run(tmp_path / "whole", killed)


def test_forms_are_compared_deeply() -> None:
    here = {"a": [{"b": 1}], "c": torch.zeros(2), "d": None, "e": "x", "f": 0.5}
    assert form_difference({**here, "a": [{"b": 5}, {"b": 0}], "more": 1}, here) is None
    assert form_difference({**here, "a": [{"b": 5}, {}]}, here) == "a.1 lacks b"
    assert form_difference({**here, "c": torch.zeros(3)}, here) == "c is torch.float32 (3,)"
    assert form_difference({**here, "e": 1}, here) == "e is int"
    assert form_difference([], here) == "it is list"
