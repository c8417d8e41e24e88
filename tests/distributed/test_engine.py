from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from alpro.distributed.engine import SingleProcess
from tests.factories import CPU


@pytest.fixture
def engine() -> SingleProcess:
    return SingleProcess(CPU, scale_loss=False)


def test_one_process_shares_nothing(engine: SingleProcess) -> None:
    rows = torch.ones(2, 3)
    assert engine.all_gather(rows) is rows
    assert engine.sum({"a": 1.0}) == {"a": 1.0}
    assert engine.gather_objects("x") == ["x"]
    assert (engine.rank, engine.size) == (0, 1)


@pytest.mark.parametrize(
    ("limit", "weights"),
    [(-1.0, [-3.0, -4.0]), (0.0, [-3.0, -4.0]), (9.0, [-3.0, -4.0]), (2.5, [-1.5, -2.0])],
)
def test_a_step_clips_updates_and_clears(
    engine: SingleProcess, limit: float, weights: list[float]
) -> None:
    model = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(3)])
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine.prepare(model, optimizer)
    for last in (False, True):
        outputs = model[0](torch.full((1, 1), 1.5)) + model[1](torch.full((1, 1), 2.0))
        engine.backward(outputs.sum(), last_micro_step=last)
    norm = engine.step(optimizer, max_grad_norm=limit)
    assert norm == pytest.approx(5.0)
    assert [p.item() for p in model.parameters()] == pytest.approx([*weights, 0.0], rel=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_an_overflow_shows_in_the_norm(engine: SingleProcess) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine.prepare(model, optimizer)
    engine.backward(model(torch.full((1, 1), 1e30)).square().sum(), last_micro_step=True)
    assert not math.isfinite(engine.step(optimizer, max_grad_norm=1.0))


def test_the_state_without_loss_scale_is_empty(engine: SingleProcess) -> None:
    assert engine.state_dict() == {}
    engine.load_state_dict({})
