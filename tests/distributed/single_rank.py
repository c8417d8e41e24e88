"""One process under ``torch.distributed``, alone, on any device: what it exchanges with itself.

    torchrun --standalone --nproc_per_node 1 --module tests.distributed.single_rank cuda FOLDER

With one rank each exchange must give back what was sent, but goes all the way that it goes with
many: over NCCL, on a GPU.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn

from alpro.distributed.engine import Engine
from alpro.distributed.launch import launch_engine
from alpro.distributed.multi_process import DistributedEngine
from tests.training.toys import (
    KilledError,
    ToyBatch,
    ToyTask,
    assert_same,
    assert_same_run,
    make_plan,
    toy_batch,
    train,
)

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool)
LAST_BATCH = 5  # of a run that is killed


def run(device: str, folder: Path) -> str:
    """Run all checks as the only process of a job; returns what carries the messages."""
    with launch_engine("torch", device=device, precision="fp32", num_threads=1) as engine:
        assert isinstance(engine, DistributedEngine)
        assert (engine.rank, engine.size, engine.device.type) == (0, 1, device)
        backends = torch.distributed.get_backend_config()
        check_prepare(engine)
        check_update(engine)
        check_overflow(engine)
        check_gathering(engine)
        check_numbers_and_objects(engine)
        check_resume(engine, folder)
        assert engine.communication > 0
    assert not torch.distributed.is_initialized()
    return backends


def model_on(device: torch.device) -> nn.Module:
    """A model with parameters of two kinds, and with buffers of others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2).bfloat16())
    model.register_buffer("seen", torch.tensor([2**40 + 1]))
    model.register_buffer("flags", torch.tensor([[True, False]]))
    return model.to(device)


def check_prepare(engine: Engine) -> None:
    """Weights, buffers and Adam's moments stay as they are, and where they are."""
    model = model_on(engine.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    before = [copied(one) for one in (model.state_dict(), optimizer.state_dict())]
    engine.prepare(model, optimizer)
    after = [model.state_dict(), optimizer.state_dict()]
    assert_same(after, before)
    moments = [state["exp_avg"] for state in after[1]["state"].values()]
    assert len(moments) == 6
    assert all(moment.device == engine.device and moment.any() for moment in moments)


def copied(value: Any) -> Any:
    """A nested state with tensors of its own."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return type(value)((key, copied(part)) for key, part in value.items())
    return [copied(part) for part in value] if isinstance(value, list) else value


def check_update(engine: Engine) -> None:
    """An update of two micro-steps is PyTorch's own; votes are counted with the last."""
    inputs = torch.randn(2, 5, 4, device=engine.device)
    weights, norms = [], []
    for reduces in (False, True):
        torch.manual_seed(1)
        model = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)]).to(engine.device)  # one is unused
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        if reduces:
            engine.prepare(model, optimizer)
        for number, part in enumerate(inputs):
            loss = model[0](part).square().mean()
            if reduces:
                last = number == 1
                votes = engine.backward(
                    loss, last_micro_step=last, votes=lambda: {"stop": 1.0, "nonfinite": 0.0}
                )
                assert votes == ({"stop": 1.0, "nonfinite": 0.0} if last else {})
            else:
                loss.backward()
        if reduces:
            assert engine.own_gradients_finite
            norms.append(engine.step(optimizer, max_grad_norm=0.1))
            assert all(parameter.grad is None for parameter in model.parameters())
        else:
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.1)))
            optimizer.step()
        weights.append([parameter.detach() for parameter in model.parameters()])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert norms[1] > 0.1  # it was clipped
    torch.testing.assert_close(*weights)


def check_overflow(engine: Engine) -> None:
    """A gradient that is not finite changes nothing, and is told."""
    model = nn.Linear(1, 1).to(engine.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine.prepare(model, optimizer)
    before = copied(model.state_dict())
    inputs = torch.full((1, 1), float("inf"), device=engine.device)
    engine.backward(model(inputs).sum(), last_micro_step=True)
    assert not engine.own_gradients_finite
    assert not math.isfinite(engine.step(optimizer, max_grad_norm=1.0))
    assert_same(model.state_dict(), before)


def check_gathering(engine: Engine) -> None:
    """Rows of all kinds come back bit for bit, and so do their gradients."""
    for dtype in DTYPES:
        for rows in (torch.randn(3, 2, 2), torch.randn(0, 2), torch.randn(2, 3).t()):
            sent = (10 * rows).to(engine.device, dtype)
            for counts in (None, [len(sent)]):
                received = engine.all_gather(sent, counts=counts)
                assert received.device == engine.device
                assert_same(received, sent)
    for dtype in (torch.float32, torch.bfloat16):
        rows = torch.randn(3, 2, device=engine.device, dtype=dtype, requires_grad=True)
        weights = torch.arange(6.0, device=engine.device).view(3, 2).to(dtype)
        (engine.all_gather(rows) * weights).sum().backward()
        assert rows.grad is not None
        assert_same(rows.grad, weights)


def check_numbers_and_objects(engine: Engine) -> None:
    """Sums are of double precision; objects may be of any kind, and in inference mode too."""
    with torch.inference_mode():
        assert engine.sum({"b": 0.1, "a": 2.0**60 + 256.0}) == {"a": 2.0**60 + 256.0, "b": 0.1}
    value = {"text": "x" * 1000, "numbers": [1, None]}
    assert engine.gather_objects(value) == [value]
    engine.heartbeat()


def check_resume(engine: Engine, folder: Path) -> None:
    """A run that is killed goes on to the same numbers, dropout's included."""

    def on_device(batch: ToyBatch) -> ToyBatch:
        inputs, targets = (part.to(engine.device) for part in (batch.inputs, batch.targets))
        return replace(batch, inputs=inputs, targets=targets)

    def batch(number: int, *, last: int | None = None) -> ToyBatch:
        if number == last:
            raise KilledError
        return on_device(toy_batch(number))

    def run_in(name: str, *, last: int | None = None) -> None:
        torch.manual_seed(2)  # of the weights
        train(
            folder / name,
            plan=make_plan(),
            batch=lambda number: batch(number, last=last),
            task=ToyTask().to(engine.device),
            validate=lambda task: task.evaluate(on_device(toy_batch(1000))),
            engine=engine,
        )

    run_in("whole")
    with pytest.raises(KilledError):
        run_in("killed", last=LAST_BATCH)
    run_in("killed")
    assert_same_run(folder / "whole", folder / "killed")


def main() -> None:
    """Run on the command line's device and note what carries the messages."""
    device, folder = sys.argv[1], Path(sys.argv[2])
    (folder / "backends").write_text(run(device, folder))
    assert "TORCHELASTIC_RUN_ID" in os.environ


if __name__ == "__main__":
    main()
