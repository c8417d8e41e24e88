"""What processes give each other, by either engine, against numbers by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alpro.distributed.engine import Engine
from tests.distributed.jobs import both_engines, on_processes
from tests.training.toys import assert_same

LEARNING_RATE = 0.5
GATHERED = {  # dtype of a rank's rows and what stands in them
    "float32": lambda rank: torch.full((1 + rank, 2), float(rank)),
    "bfloat16": lambda rank: torch.full((rank, 3), 1.0 + rank, dtype=torch.bfloat16),
    "int64": lambda rank: torch.full((2 - rank,), 2**60 + rank),
    "bool": lambda rank: torch.full((1, 2, 2), rank == 1),
    "not contiguous": lambda rank: torch.arange(6.0).view(2, 3).t()[: 1 + rank] + rank,
    "no width": lambda rank: torch.zeros(rank, 0),
}


def place(engine: Engine) -> dict[str, Any]:
    totals = engine.sum({"b": 10.0, "a": 2.0**60 + 256.0 * engine.rank})
    return {
        "place": (engine.rank, engine.size, type(engine).__name__),
        "objects": engine.gather_objects({"rank": engine.rank, "text": "x" * engine.rank}),
        "sum": totals,
        "took time": engine.communication > 0,
    }


@both_engines
def test_numbers_and_objects(backend: str) -> None:
    found = on_processes(3, place, backend=backend)
    assert [one["place"] for one in found] == [(rank, 3, "DistributedEngine") for rank in range(3)]
    for one in found:
        assert one["objects"] == [{"rank": rank, "text": "x" * rank} for rank in range(3)]
        assert one["sum"] == {"a": 3 * 2.0**60 + 768.0, "b": 30.0}  # in double precision
        assert one["took time"]


def gather(engine: Engine) -> dict[str, Tensor]:
    return {name: engine.all_gather(rows(engine.rank)) for name, rows in GATHERED.items()}


@both_engines
def test_rows_of_any_kind_are_gathered_in_rank_order(backend: str) -> None:
    for found in on_processes(2, gather, backend=backend):
        for name, rows in GATHERED.items():
            expected = torch.cat([rows(0), rows(1)])
            assert found[name].dtype == expected.dtype, name
            assert torch.equal(found[name], expected), name


def gather_and_weigh(engine: Engine, dtype: torch.dtype) -> Tensor:
    """2, 0 and 1 rows, and a loss that weighs rows by place and rank."""
    rows = torch.zeros((2, 0, 1)[engine.rank], 2, dtype=dtype, requires_grad=True)
    gathered = engine.all_gather(rows)
    weights = torch.arange(1.0, 1 + len(gathered)) * 10**engine.rank
    (gathered * weights[:, None]).sum().backward()
    assert rows.grad is not None
    return rows.grad


@both_engines
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_backward_of_gathering_sums_over_the_ranks(backend: str, dtype: torch.dtype) -> None:
    """The weights are 1, 2, 3 on rank 0, 10, 20, 30 on rank 1 and 100, 200, 300 on rank 2."""
    gradients = on_processes(3, gather_and_weigh, dtype, backend=backend)
    assert [gradient.dtype for gradient in gradients] == [dtype] * 3
    expected = [torch.tensor([[111.0] * 2, [222.0] * 2]), torch.zeros(0, 2)]
    expected.append(torch.tensor([[333.0] * 2]))
    for gradient, by_hand in zip(gradients, expected, strict=True):
        assert torch.equal(gradient, by_hand.to(dtype))


def update(engine: Engine, max_grad_norm: float) -> dict[str, Any]:
    """Two micro-steps of parameters used by both ranks, by rank 1 only, and by none."""
    modules = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in ("both", "one", "none")})
    for module in modules.values():
        nn.init.constant_(module.weight, float(engine.rank))  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(modules.parameters(), lr=LEARNING_RATE * (1 + engine.rank))
    engine.prepare(modules, optimizer)
    used = ("both", "one") if engine.rank == 1 else ("both",)
    inputs = torch.tensor([[1.0 + engine.rank]])
    sums: dict[str, float] = {}

    def votes() -> dict[str, float]:
        return {"stop": float(engine.rank), "nonfinite": 1.0}

    for last in (False, True):
        outputs = [modules[name](inputs) for name in used]
        sums = engine.backward(torch.cat(outputs).sum(), last_micro_step=last, votes=votes)
        assert bool(sums) == last
    gradients = [None if p.grad is None else p.grad.item() for p in modules.parameters()]
    return {
        "learning_rate": optimizer.param_groups[0]["lr"],
        "votes": sums,
        "gradients": gradients,
        "norm": engine.step(optimizer, max_grad_norm=max_grad_norm),
        "weights": [float(p.detach()) for p in modules.parameters()],
        "cleared": all(p.grad is None for p in modules.parameters()),
    }


@both_engines
@pytest.mark.parametrize(
    ("max_grad_norm", "weights"),
    [(-1.0, [-1.5, -1.0, 0.0]), (1.0, [-0.3, -0.2, 0.0])],
)
def test_an_update(backend: str, max_grad_norm: float, weights: list[float]) -> None:
    """Inputs are 1 on rank 0 and 2 on rank 1, in two micro-steps; rank 0's weights are all 0.

    The gradients are (2 + 4) / 2 = 3 and (0 + 4) / 2 = 2, and none; clipping is to a fifth.
    """
    limit = max_grad_norm * 13**0.5 / 5
    for found in on_processes(2, update, limit, backend=backend):
        assert found["learning_rate"] == LEARNING_RATE
        assert found["votes"] == {"stop": 1.0, "nonfinite": 2.0}
        assert found["gradients"] == [3.0, 2.0, None]
        assert found["norm"] == pytest.approx(13**0.5)  # of the reduced gradients, before clipping
        assert found["weights"] == pytest.approx(weights, rel=1e-5)
        assert found["cleared"]


def overflow(engine: Engine) -> tuple[bool, float, list[float]]:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    engine.prepare(model, optimizer)
    factor = float("inf") if engine.rank == 1 else 1.0
    engine.backward((model(torch.ones(1, 1)) * factor).sum(), last_micro_step=True)
    own = engine.own_gradients_finite
    norm = engine.step(optimizer, max_grad_norm=1.0)
    return own, norm, [float(p.detach()) for p in model.parameters()]


@both_engines
def test_a_gradient_that_is_not_finite_anywhere_changes_no_weights_and_has_a_culprit(
    backend: str,
) -> None:
    found = on_processes(3, overflow, backend=backend)
    assert [own for own, *_ in found] == [True, False, True]
    assert not any(torch.isfinite(torch.tensor(norm)) for _, norm, _ in found)
    assert [weights for *_, weights in found] == [[1.0]] * 3


class Odd(torch.optim.SGD):
    """An optimizer whose state has a tensor of every kind that a state may have."""

    def __init__(self, parameters: Any, odd: Any) -> None:
        super().__init__(parameters, lr=1.0)
        self.odd = odd

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "odd": self.odd}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.odd = state_dict["odd"]


def odd_state(rank: int) -> dict[Any, Any]:
    return {
        "moment": torch.full((2, 3), 0.1 + rank, dtype=torch.bfloat16),
        "step": torch.tensor(7 + rank),
        "flags": torch.tensor([True, rank == 0, False]),
        "empty": torch.empty(0, 3, dtype=torch.float16),
        "nested": {"pair": [torch.tensor([1.5 + rank], dtype=torch.float64), f"rank {rank}"]},
        5: (None, rank),
    }


def prepare(engine: Engine, kind: str) -> tuple[Any, Any]:
    """What rank 0 has before, and this rank after."""
    torch.manual_seed(engine.rank)
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2).bfloat16())
    model.register_buffer("seen", torch.tensor([2**40 + engine.rank]))
    model.register_buffer("flags", torch.tensor([[engine.rank == 0, True]]))
    model.register_buffer("nothing", torch.empty(0))
    if kind == "odd":
        optimizer: torch.optim.Optimizer = Odd(model.parameters(), odd_state(engine.rank))
    else:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0 + engine.rank)
        if engine.rank == 0:  # which has resumed
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
    sent = engine.gather_objects((model.state_dict(), optimizer.state_dict()))[0]
    engine.prepare(model, optimizer)
    return sent, (model.state_dict(), optimizer.state_dict())


@both_engines
@pytest.mark.parametrize("kind", ["Adam", "odd"])
def test_all_ranks_begin_with_rank_0s_weights_and_optimizer_state(backend: str, kind: str) -> None:
    for sent, received in on_processes(2, prepare, kind, backend=backend):
        assert_same(received, sent)
        state = received[1]["state"] if kind == "Adam" else received[1]["odd"]
        assert len(state) == 6


def prepare_in_small_messages(engine: Engine) -> list[Tensor]:
    from alpro.distributed import multi_process as many

    many._BROADCAST_BYTES = 20  # noqa: SLF001  # 5 numbers; some tensors are larger
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1), nn.Linear(1, 1))
    for parameter in model.parameters():
        nn.init.constant_(parameter, float(engine.rank))
    engine.prepare(model, torch.optim.SGD(model.parameters(), lr=1.0))
    return [parameter.detach() for parameter in model.parameters()]


def test_weights_that_do_not_fit_into_a_message_are_sent_in_several() -> None:
    for found in on_processes(2, prepare_in_small_messages):
        assert not any(parameter.any() for parameter in found)


def exchange_in_inference_mode(engine: Engine) -> dict[str, float]:
    model = nn.Linear(1, 1)
    with torch.inference_mode():
        rows = engine.all_gather(torch.full((1, 1), float(engine.rank)))
        total = engine.sum({"rank": float(engine.rank)})["rank"]
        output = model(rows).sum()
    return {"rows": float(rows.sum()), "total": total, "is inference": output.is_inference()}


@both_engines
def test_exchanges_work_in_inference_mode(backend: str) -> None:
    expected = {"rows": 1.0, "total": 1.0, "is inference": True}
    assert on_processes(2, exchange_in_inference_mode, backend=backend) == [expected] * 2
