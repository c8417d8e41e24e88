"""Updates against hand computations, and resuming against not being interrupted."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alpro.datasets.video_datasets import UnreadableVideo
from alpro.distributed.engine import SingleProcess
from alpro.errors import InputError, ScarcityError
from alpro.training.objective import Objective
from alpro.training.trainer import HOW_TO_CONTINUE
from tests.factories import CPU
from tests.training.toys import (
    KilledError,
    ToyBatch,
    ToyTask,
    assert_same,
    assert_same_run,
    kill_at_batch,
    make_plan,
    metric_lines,
    toy_batch,
    train,
)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("update", range(1, 8))
def test_a_killed_run_continues_bit_for_bit(tmp_path: Path, update: int, accumulation: int) -> None:
    plan = make_plan(accumulation_steps=accumulation)
    train(tmp_path / "whole", plan=plan)
    # KilledError while waiting for the last batch of an update.
    killer = kill_at_batch(update * accumulation - 1)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", plan=plan, batch=killer)
    train(tmp_path / "killed", plan=plan)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_run_killed_twice_and_during_validation_continues_bit_for_bit(tmp_path: Path) -> None:
    plan = make_plan(num_train_steps=9, accumulation_steps=2)
    train(tmp_path / "whole", plan=plan)
    for survived in (1, 2):  # validations of this process: 0 of (0, 3), then 3 and 6 of (3, 6, 9)
        countdown = iter(range(survived))

        def validate(task: Objective, countdown: Iterator[int] = countdown) -> dict[str, float]:
            if next(countdown, None) is None:
                raise KilledError
            return task.evaluate(toy_batch(1000))

        with pytest.raises(KilledError):
            train(tmp_path / "killed", plan=plan, validate=validate)
    train(tmp_path / "killed", plan=plan)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_dropout_makes_the_comparison_depend_on_the_generators_state(tmp_path: Path) -> None:
    plan = make_plan()
    train(tmp_path / "random", plan=plan)
    train(tmp_path / "plain", plan=plan, task=ToyTask(dropout=0.0))
    assert metric_lines(tmp_path / "random")[1:] != metric_lines(tmp_path / "plain")[1:]


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    plan = make_plan()
    train(tmp_path, plan=plan)
    before = metric_lines(tmp_path)
    train(tmp_path, plan=plan, batch=kill_at_batch(7))  # not one more batch is asked for
    assert metric_lines(tmp_path) == before


def test_the_order_of_events(tmp_path: Path) -> None:
    train(tmp_path, plan=make_plan())
    events = [(line["step"], line["split"]) for line in metric_lines(tmp_path)]
    validations = [(0, "valid"), (3, "valid"), (6, "valid"), (7, "valid")]
    assert events == sorted([*((step, "train") for step in range(1, 8)), *validations])
    names = {path.name for path in (tmp_path / "ckpt").iterdir()}
    numbered = {f"model_step_{step}.pt" for step in (3, 6, 7)}
    assert names == numbered | {"model_step_best.pt", "model_step_last.pt"}
    assert torch.load(tmp_path / "restore.pt", weights_only=True)["position"]["step"] == 7
    assert torch.load(tmp_path / "restore_backup.pt", weights_only=True)["position"]["step"] == 6
    rates = [line["lr"] for line in metric_lines(tmp_path) if line["split"] == "train"]
    assert rates == [0.1 / step for step in range(1, 8)]


def test_debug_stops_early_on_the_schedule_of_the_whole_run(tmp_path: Path) -> None:
    train(tmp_path, plan=make_plan(stop_after=2))
    lines = metric_lines(tmp_path)
    assert [(line["step"], line["split"]) for line in lines][-1] == (2, "valid")
    assert lines[1]["lr"] == 0.1


@pytest.mark.parametrize(("metric", "best"), [("score", 6), ("loss", 6), ("medianR", 3)])
def test_the_best_checkpoint_is_the_best_of_the_chosen_metric(
    tmp_path: Path, metric: str, best: int
) -> None:
    scores = iter([9.0, 1.0, 3.0, 2.0])  # at updates 0, 3, 6, 7; the first is not a checkpoint

    def validate(_: Objective) -> dict[str, float]:
        score = next(scores)
        return {"score": score, "loss": -score, "medianR": score}

    trainer = train(tmp_path, plan=make_plan(best_metric=metric), validate=validate)
    states = [
        torch.load(tmp_path / f"ckpt/model_step_{name}.pt", weights_only=True)
        for name in ("best", best, "last", 7)
    ]
    assert_same(states[0], states[1])
    assert_same(states[2], states[3])
    assert_same(dict(trainer.objective.model.state_dict()), dict(states[3]))


def test_the_best_value_so_far_survives_a_kill(tmp_path: Path) -> None:
    def killed_after(scores: list[float]) -> None:
        remaining = iter(scores)

        def validate(_: Objective) -> dict[str, float]:
            score = next(remaining, None)
            if score is None:
                raise KilledError
            return {"score": score}

        train(tmp_path, plan=make_plan(), validate=validate)

    with pytest.raises(KilledError):
        killed_after([0.0, 9.0])  # at updates 0 and 3; dies at 6, its restore file is of update 4
    killed_after([2.0, 1.0])  # at updates 6 and 7
    names = ("best", 3)
    best, third = (
        torch.load(tmp_path / f"ckpt/model_step_{name}.pt", weights_only=True) for name in names
    )
    assert_same(best, third)


class Scale(Objective):
    """Predicts w * x; for the mean squared error the gradient is the mean of 2 * x * (w*x - y)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.model = self.linear
        nn.init.constant_(self.linear.weight, 1.0)

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        return {"loss": (self.model(batch.inputs)[:, 0] - batch.targets).square().mean()}

    def evaluate(self, data: Any) -> dict[str, float]:  # noqa: ARG002
        return {"score": 0.0}


def by_hand(number: int) -> ToyBatch:
    """Batch 0 has gradients 2*1*(1-0) = 2 and 2*2*(2-1) = 4, batch 1 has 0 and 2*2*(2-3) = -4."""
    inputs, targets = [([1.0, 2.0], [0.0, 1.0]), ([1.0, 2.0], [1.0, 3.0])][number]
    return ToyBatch(torch.tensor(inputs)[:, None], torch.tensor(targets), ["a", "b"], [])


@pytest.mark.parametrize(
    ("mean", "clip", "norm", "weight"),
    [
        (False, -1.0, 1.0, 0.9),  # 3 + -2, the gradients of the two batches
        (True, -1.0, 0.5, 0.95),  # that of one batch of four
        (False, 0.5, 1.0, 0.95),  # the norm is reported as it was before clipping
        (False, 2.0, 1.0, 0.9),
    ],
)
def test_accumulation_and_clipping_by_hand(
    tmp_path: Path, mean: bool, clip: float, norm: float, weight: float
) -> None:
    task = Scale()
    plan = make_plan(
        num_train_steps=1, accumulation_steps=2, mean_accumulation=mean, max_grad_norm=clip
    )
    sgd = partial(torch.optim.SGD, lr=0.0)
    train(tmp_path, plan=plan, task=task, batch=by_hand, optimizer=sgd, learning_rate=lambda _: 0.1)
    line = metric_lines(tmp_path)[1]
    assert line["grad_norm"] == pytest.approx(norm)
    assert line["loss"] == pytest.approx(((1 + 1) / 2 + (0 + 1) / 2) / 2)
    assert task.linear.weight.item() == pytest.approx(weight)


@pytest.mark.parametrize(("batch", "said"), [(1, ()), (4, (HOW_TO_CONTINUE,))])
def test_an_interrupted_run_says_how_to_go_on_once_there_is_a_restore_file(
    tmp_path: Path, batch: int, said: tuple[str, ...]
) -> None:
    def interrupted_at(number: int) -> ToyBatch:
        if number == batch:
            raise KeyboardInterrupt
        return toy_batch(number)

    with pytest.raises(KeyboardInterrupt) as caught:
        train(tmp_path, plan=make_plan(), batch=interrupted_at)
    assert caught.value.args == said


@pytest.mark.parametrize(("batch", "goes_on"), [(1, False), (4, True)])
def test_a_run_that_lacks_memory_says_how_to_go_on(
    tmp_path: Path, batch: int, goes_on: bool
) -> None:
    def out_of_memory_at(number: int) -> ToyBatch:
        if number == batch:
            raise MemoryError
        return toy_batch(number)

    with pytest.raises(ScarcityError if goes_on else MemoryError) as caught:
        train(tmp_path, plan=make_plan(), batch=out_of_memory_at)
    assert (HOW_TO_CONTINUE in str(caught.value)) == goes_on


def test_the_validation_before_the_first_update_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train(tmp_path, plan=make_plan(), validate=lambda _: {"score": 0.25})
    assert "update 0: score 0.25, before training" in caplog.text


def test_unreadable_videos_are_counted_by_epoch_and_listed_once(tmp_path: Path) -> None:
    def batch(number: int) -> ToyBatch:
        made = toy_batch(number)
        if number in (0, 2, 4):
            made.unreadable.append(UnreadableVideo(f"bad{number}", "made so"))
        return made

    plan = make_plan(num_train_steps=6)
    train(tmp_path / "some", plan=plan, batch=batch, max_unreadable=2 / 6)
    listed = (tmp_path / "some/log/unreadable_videos.jsonl").read_text().splitlines()
    assert listed == [f'{{"video_id": "bad{number}", "reason": "made so"}}' for number in (0, 2, 4)]
    with pytest.raises(InputError, match="2 of the 6 training samples of epoch 1 could not be"):
        train(tmp_path / "many", plan=plan, batch=batch, max_unreadable=1 / 6)


class FakeRankOfThree(SingleProcess):
    """Stands for one of three processes with the same numbers; counts the sums it was asked for."""

    def __init__(self) -> None:
        super().__init__(CPU, scale_loss=False)
        self.num_sums = 0

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        self.num_sums += 1
        return {name: 3 * total for name, total in totals.items()}


def test_unreadable_videos_of_all_processes_are_counted_in_the_lines(tmp_path: Path) -> None:
    def batch(number: int) -> ToyBatch:
        made = toy_batch(number)
        made.unreadable.append(UnreadableVideo(f"bad{number}", "made so"))
        return made

    engine = FakeRankOfThree()
    every_third: dict[str, Any] = {"plan": make_plan(), "log_interval": 3}
    train(tmp_path, batch=batch, max_unreadable=1.0, engine=engine, **every_third)
    lines = [line for line in metric_lines(tmp_path) if line["split"] == "train"]
    counts = {line["step"]: line["unreadable_videos"] for line in lines}
    assert counts == {3: 9, 6: 18, 7: 21}
    assert engine.num_sums == len(lines) + 3  # after validations: has SIGTERM come to any rank?


def test_a_resumed_run_logs_its_update(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KilledError):
        train(tmp_path, plan=make_plan(), batch=kill_at_batch(5))
    with caplog.at_level(logging.INFO):
        train(tmp_path, plan=make_plan())
    assert f"continuing {tmp_path} after update 4" in caplog.text


def test_a_metric_to_choose_by_that_is_not_there_stops_the_run_before_training(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="best_metric: the validation set gives no accuracy, only"):
        train(tmp_path, plan=make_plan(best_metric="accuracy"), batch=kill_at_batch(0))
