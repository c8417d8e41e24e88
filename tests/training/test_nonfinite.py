"""Updates whose loss or gradient is not finite: they stop a run, or are left out and counted."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alpro.distributed.engine import Engine, SingleProcess
from alpro.errors import PeerLostError, RunError
from alpro.training.faults import MAX_SKIPPED_IN_A_ROW, NonfiniteGuard, UpdateRecord
from alpro.training.run_directory import RunDirectory
from alpro.training.train_state import random_state, set_random_state
from tests.evaluation.ranks import on_ranks
from tests.factories import CPU
from tests.training.toys import (
    KilledError,
    ToyBatch,
    ToyTask,
    assert_same,
    kill_at_batch,
    make_plan,
    metric_lines,
    toy_batch,
    train,
)


def spoilt_at(*numbers: int) -> Callable[[int], ToyBatch]:
    """Batches as usual, some of them with an infinite input."""

    def batch(number: int) -> ToyBatch:
        made = toy_batch(number)
        if number in numbers:
            made.inputs[0, 0] = math.inf
        return made

    return batch


class SteepTask(ToyTask):
    """Its loss is always finite; where an input is not, the gradient is not."""

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        is_bad = not batch.inputs.isfinite().all()
        inputs = batch.inputs.nan_to_num(posinf=1.0)
        values = super().forward(ToyBatch(inputs, batch.targets.clamp(-9, 9), [], []))
        if is_bad:
            values["loss"] = values["loss"] + (0 * values["loss"]).sqrt()
        return values


@pytest.mark.parametrize(("task", "what"), [(ToyTask, "loss"), (SteepTask, "gradient")])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_stops_and_leaves_what_reproduces_the_update(
    tmp_path: Path, task: type[ToyTask], what: str, accumulation: int
) -> None:
    plan = make_plan(accumulation_steps=accumulation)
    bad = 3 * accumulation  # the first batch of update 4
    with pytest.raises(RunError) as caught:
        train(tmp_path, plan=plan, batch=spoilt_at(bad), task=task())
    message = str(caught.value)
    batches = range(bad, bad + accumulation)
    ids = ", ".join(f"v{number}.{sample}" for number in batches for sample in range(2))
    assert message.startswith(f"update 4: the {what} is not finite\n  rank 0: loss ")
    assert f"its batch is of {ids}\n" in message
    assert f"{tmp_path / 'nonfinite'} holds the model" in message
    assert "--on_nonfinite skip" in message
    folder = tmp_path / "nonfinite"
    assert sorted(path.name for path in folder.iterdir()) == ["step_4_model.pt", "step_4_rank_0.pt"]
    kept = torch.load(folder / "step_4_rank_0.pt", weights_only=True)
    assert kept["step"] == 4
    again = task()
    again.model.load_state_dict(torch.load(folder / "step_4_model.pt", weights_only=True))
    set_random_state(kept["random"], CPU)
    losses = [again(ToyBatch(**fields))["loss"] for fields in kept["batches"]]
    shown = ", ".join(f"{loss:g}" for loss in losses)
    assert f"rank 0: loss {shown};" in message
    torch.stack(losses).sum().backward()
    gradients = [p.grad for p in again.parameters() if p.grad is not None]
    assert not all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert [line["step"] for line in metric_lines(tmp_path)][-1] == 3


def test_the_model_left_behind_is_that_of_before_the_update(tmp_path: Path) -> None:
    task = ToyTask()
    with pytest.raises(RunError):
        train(tmp_path, plan=make_plan(), batch=spoilt_at(3), task=task)
    left = torch.load(tmp_path / "nonfinite/step_4_model.pt", weights_only=True)
    assert_same(left, dict(task.model.state_dict()))
    checkpoint = torch.load(tmp_path / "ckpt/model_step_3.pt", weights_only=True)
    assert_same(left, checkpoint)


@pytest.mark.parametrize("task", [ToyTask, SteepTask])
def test_such_updates_can_be_left_out_and_are_counted(
    tmp_path: Path, task: type[ToyTask], caplog: pytest.LogCaptureFixture
) -> None:
    weights: list[Tensor] = []

    def batch(number: int) -> ToyBatch:
        weights.append(next(model.parameters()).detach().clone())  # before the update
        return spoilt_at(2, 4)(number)

    model = task()
    train(tmp_path, plan=make_plan(), batch=batch, task=model, on_nonfinite="skip")
    changed = [not torch.equal(*pair) for pair in zip(weights, weights[1:], strict=False)]
    assert changed == [True, True, False, True, False, True]
    assert caplog.text.count("skipped update") == 2
    assert "skipped update 3: the" in caplog.text
    lines = [line for line in metric_lines(tmp_path) if line["split"] == "train"]
    counts = [line.get("skipped_updates", 0) for line in lines]
    assert counts == [0, 0, 1, 1, 2, 2, 2]
    assert lines[2]["grad_norm"] is None
    assert not (tmp_path / "nonfinite").exists()


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    spoilt, killer = spoilt_at(1, 5), kill_at_batch(4)
    with pytest.raises(KilledError):
        train(
            tmp_path,
            plan=make_plan(),
            batch=lambda number: killer(number) and spoilt(number),
            on_nonfinite="skip",
        )
    train(tmp_path, plan=make_plan(), batch=spoilt, on_nonfinite="skip")
    assert metric_lines(tmp_path)[-2]["skipped_updates"] == 2


@pytest.mark.parametrize("num_good", [0, 1])
def test_too_many_in_a_row_stop_a_run_that_skips(tmp_path: Path, num_good: int) -> None:
    """One good update in between begins the count anew."""
    good = {5} if num_good else set()
    spoilt = spoilt_at(*(set(range(100)) - good))
    with pytest.raises(RunError, match=rf"here \({MAX_SKIPPED_IN_A_ROW + 1} in a row\)") as caught:
        train(tmp_path, plan=make_plan(num_train_steps=99), batch=spoilt, on_nonfinite="skip")
    last = MAX_SKIPPED_IN_A_ROW + 1 + (6 if good else 0)
    assert str(caught.value).startswith(f"update {last}: the loss is not finite")


class Scaled(SingleProcess):
    """As with a loss scale of fp16, which may be too large."""

    may_overflow = True


def test_overflows_of_the_loss_scale_are_no_fault(tmp_path: Path) -> None:
    engine = Scaled(CPU, scale_loss=False)
    train(tmp_path, plan=make_plan(), batch=spoilt_at(2), task=SteepTask(), engine=engine)
    lines = [line for line in metric_lines(tmp_path) if line["split"] == "train"]
    assert [line["grad_norm"] is None for line in lines] == [n == 2 for n in range(7)]
    assert "skipped_updates" not in lines[-1]
    with pytest.raises(RunError, match="the loss is not finite"):  # which no scale has made so
        train(tmp_path / "loss", plan=make_plan(), batch=spoilt_at(2), engine=engine)


@dataclass
class Judgement:
    """How it ended on a rank."""

    error: type[Exception] | None
    message: str


def judge(
    engine: Any, root: Path, *, losses: list[float], finite: list[bool], policy: str = "stop"
) -> Judgement:
    """A rank's part in the judgement of an update."""
    engine._own_gradients_finite = finite[engine.rank]  # noqa: SLF001
    attempt = UpdateRecord(5, random_state(CPU), [toy_batch(engine.rank)], [losses[engine.rank]])
    output = RunDirectory(root, rank=engine.rank)
    guard = NonfiniteGuard(output, policy=policy, num_steps=9)
    what = "gradient" if all(map(math.isfinite, losses)) else "loss"
    try:
        guard.handle_nonfinite(attempt, ToyTask(), engine=engine, what=what)
    except (RunError, PeerLostError) as error:
        return Judgement(type(error), str(error))
    return Judgement(None, "")


def on_three_ranks(root: Path, **options: Any) -> list[Judgement]:
    def work(engine: Engine) -> Judgement:
        return judge(engine, root, **options)

    return on_ranks(len(options["losses"]), work)


def files(root: Path) -> set[str]:
    return {path.name for path in (root / "nonfinite").iterdir()}


@pytest.mark.parametrize(
    ("losses", "finite", "what"),
    [
        # The NaN has reached the gradients of all ranks.
        ([1.0, math.nan, 2.0], [False, False, False], "loss"),
        ([1.0, 5.0, 2.0], [True, False, True], "gradient"),
    ],
)
def test_the_rank_at_fault_tells_of_it(
    tmp_path: Path, losses: list[float], finite: list[bool], what: str
) -> None:
    found = on_three_ranks(tmp_path, losses=losses, finite=finite)
    assert [one.error for one in found] == [PeerLostError, RunError, PeerLostError]
    told = f"update 5: the {what} is not finite\n  rank 1: loss {losses[1]:g}; its batch is of v1.0"
    assert found[1].message.startswith(told)
    assert "rank 0" not in found[1].message
    assert files(tmp_path) == {"step_5_rank_1.pt", "step_5_model.pt"}


def test_of_many_ranks_at_fault_some_are_named(tmp_path: Path) -> None:
    found = on_three_ranks(tmp_path, losses=[1.0] + [math.inf] * 5, finite=[True] * 6)
    assert [one.error for one in found] == [PeerLostError, RunError, *[PeerLostError] * 4]
    named = [line.split(":")[0] for line in found[1].message.splitlines()[1:5]]
    assert named == ["  rank 1", "  rank 2", "  rank 3", "  and 2 more"]
    assert files(tmp_path) == {"step_5_model.pt", *(f"step_5_rank_{n}.pt" for n in range(1, 6))}


def test_where_only_the_sum_is_not_finite_all_ranks_are_at_fault(tmp_path: Path) -> None:
    found = on_three_ranks(tmp_path, losses=[1e38, 1e38], finite=[True] * 2)
    assert [one.error for one in found] == [RunError, PeerLostError]
    assert "rank 0: loss 1e+38; its batch is of v0.0" in found[0].message
    assert "rank 1: loss 1e+38; its batch is of v1.0" in found[0].message
    assert files(tmp_path) == {"step_5_model.pt", "step_5_rank_0.pt", "step_5_rank_1.pt"}


def test_a_skipped_update_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = on_three_ranks(
            tmp_path, losses=[1.0, math.nan, 2.0], finite=[False] * 3, policy="skip"
        )
    assert [one.error for one in found] == [None] * 3
    assert caplog.text.count("skipped update 5: the loss is not finite") == 1
    assert "rank 1: loss nan; its batch is of v1.0, v1.1" in caplog.text
