"""Restore files with undamaged bytes and a content that no run of this kind has written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.errors import InputError
from alpro.training.checkpoints import save_restore
from alpro.training.run_directory import RunDirectory
from alpro.training.train_state import form_difference
from tests.training.toys import (
    KilledError,
    assert_same_run,
    kill_at_batch,
    make_plan,
    train,
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
