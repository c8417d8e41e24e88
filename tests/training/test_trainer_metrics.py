"""Numbers that are not there: accuracies of nothing, metrics that are not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.toys import (
    ToyBatch,
    ToyTask,
    assert_same,
    make_plan,
    metric_lines,
    train,
)


class SometimesAsked(ToyTask):
    """Has an accuracy in every second batch: 0 %, 20 %, 40 % and so on."""

    def __init__(self) -> None:
        super().__init__()
        self.num_batches = 0

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        values = super().forward(batch)
        if self.num_batches % 2:
            values["acc"] = torch.tensor(10.0 * (self.num_batches - 1))
        self.num_batches += 1
        return values


def test_an_accuracy_is_over_the_batches_that_have_one(tmp_path: Path) -> None:
    options: dict[str, Any] = {"validate": lambda _: {"score": 0.0}}
    plan = make_plan(accumulation_steps=3)
    train(tmp_path / "three", plan=plan, task=SometimesAsked(), **options)
    lines = [line for line in metric_lines(tmp_path / "three") if line["split"] == "train"]
    assert [line["acc"] for line in lines[:3]] == [0.0, 30.0, 60.0]  # of 0; 20, 40; 60
    train(tmp_path / "one", plan=make_plan(), task=SometimesAsked(), **options)
    lines = [line for line in metric_lines(tmp_path / "one") if line["split"] == "train"]
    assert [line.get("acc") for line in lines[:4]] == [None, 0.0, None, 20.0]


@pytest.mark.parametrize("worst", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("metric", ["score", "loss"])
def test_a_nan_metric_is_replaced_by_any_number(tmp_path: Path, metric: str, worst: float) -> None:
    values = iter([1.0, worst, 5.0, worst])  # at updates 0, 3, 6, 7
    plan = make_plan(best_metric=metric)
    train(tmp_path, plan=plan, validate=lambda _: {metric: next(values)})
    best, expected = (
        torch.load(tmp_path / f"ckpt/model_step_{name}.pt", weights_only=True)
        for name in ("best", 6)
    )
    assert_same(best, expected)
