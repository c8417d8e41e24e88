"""The engine of many processes over a communicator that only pretends to have peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from alpro.distributed.engine import Engine
from alpro.distributed.multi_process import DistributedEngine
from alpro.errors import PeerLostError
from tests.factories import CPU
from tests.training.toys import ToyTask, toy_batch

T = TypeVar("T")


class FakePeer:
    """Rank 0 of two, whose peer has the same numbers; keeps a list of messages."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.messages: list[tuple[str, int]] = []
        """What was done with how many numbers or bytes."""

    def sum_(self, tensor: Tensor) -> None:
        self.messages.append(("sum", tensor.numel()))
        tensor.mul_(2)

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        self.messages.append(("gather rows", rows.numel()))
        assert list(counts) == [len(rows)] * 2
        return torch.cat([rows, rows])

    def broadcast_(self, tensor: Tensor) -> None:
        self.messages.append(("broadcast", tensor.numel()))

    def gather_objects(self, value: T) -> list[T]:
        self.messages.append(("gather objects", 1))
        return [value, value]

    def is_finished(self) -> bool:
        return True

    def close(self) -> None:
        self.messages.append(("close", 0))


class DisconnectedPeer(FakePeer):
    """Its peer has gone."""

    def sum_(self, tensor: Tensor) -> None:  # noqa: ARG002
        raise RuntimeError("Connection closed by peer [10.0.0.2]")


def no_votes() -> dict[str, float]:
    return {"stop": 0.0, "nonfinite": 0.0}


@pytest.fixture
def peer() -> FakePeer:
    return FakePeer()


def engine_over(peer: FakePeer) -> DistributedEngine:
    return DistributedEngine(peer, CPU, scale_loss=False)


def test_a_distributed_engine_has_rank_size_and_device(peer: FakePeer) -> None:
    engine: Engine = engine_over(peer)
    assert (engine.rank, engine.size, engine.device) == (0, 2, CPU)


@pytest.mark.parametrize("accumulation", [1, 2, 5])
def test_an_update_is_one_message_whatever_the_accumulation(
    peer: FakePeer, accumulation: int
) -> None:
    engine, task = engine_over(peer), ToyTask()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    engine.prepare(task, optimizer)
    peer.messages.clear()
    num_updates = 3
    for number in range(num_updates * accumulation):
        last = number % accumulation == accumulation - 1
        loss = task(toy_batch(number))["loss"]
        engine.backward(loss, last_micro_step=last, votes=no_votes)
        if last:
            engine.step(optimizer, max_grad_norm=1.0)
    parameters = list(task.parameters())
    # Gradients, which of them there are, and the votes.
    size = sum(p.numel() for p in parameters) + len(parameters) + 2
    assert peer.messages == [("sum", size)] * num_updates


def test_the_reduction_has_a_fixed_layout(peer: FakePeer) -> None:
    """Parameter after parameter, whether they have gradients or not, in whatever order."""
    seen: list[Tensor] = []

    def see(tensor: Tensor) -> None:
        seen.append(tensor.clone())

    peer.sum_ = see  # type: ignore[method-assign]
    engine = engine_over(peer)
    model = nn.ParameterList([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1, 3))])
    engine.prepare(model, torch.optim.SGD([model[1], model[0]], lr=1.0))
    engine.backward(4 * model[0].sum(), last_micro_step=True, votes=lambda: {"b": 5.0, "a": 6.0})
    assert seen[0].tolist() == [0.0] * 3 + [4.0] * 2 + [0.0, 1.0] + [6.0, 5.0]


def test_the_start_broadcasts_weights_and_optimizer_state(peer: FakePeer) -> None:
    engine, task = engine_over(peer), ToyTask()
    optimizer = torch.optim.AdamW(task.parameters())
    task(toy_batch(0))["loss"].backward()
    optimizer.step()
    numbers = sum(p.numel() for p in task.parameters())
    engine.prepare(task, optimizer)
    assert peer.messages == [
        ("broadcast", 4 * numbers),
        ("gather objects", 1),
        ("broadcast", 4 * (2 * numbers + len(list(task.parameters())))),  # moments, and steps
    ]


def test_gathering_rows_sends_their_number_first(peer: FakePeer) -> None:
    gathered = engine_over(peer).all_gather(torch.ones(3, 2))
    assert gathered.tolist() == [[1.0, 1.0]] * 6
    assert peer.messages == [("gather rows", 8), ("gather rows", 3 * 2 * 4)]


def test_gradients_are_averaged_in_fp32(peer: FakePeer) -> None:
    engine = engine_over(peer)
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    engine.prepare(nn.ParameterList([parameter]), optimizer)
    engine.backward(3 * parameter.sum(), last_micro_step=True)
    assert parameter.grad is not None
    assert (parameter.grad.dtype, parameter.grad.item()) == (torch.bfloat16, 3.0)


def test_a_failed_collective_means_a_lost_peer() -> None:
    engine = engine_over(DisconnectedPeer())
    with pytest.raises(PeerLostError, match=r"lost the connection to other ranks: .*10\.0\.0\.2"):
        engine.sum({"a": 1.0})


def test_other_errors_are_not_mistaken_for_a_lost_peer(peer: FakePeer) -> None:
    def refuse(tensor: Tensor) -> None:  # noqa: ARG001
        raise ValueError("not of this kind")

    peer.sum_ = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="not of this kind"):
        engine_over(peer).sum({"a": 1.0})


class SlowPeer(FakePeer):
    """Exchanges in the background, as GPUs do; looked at often enough, it has finished."""

    def __init__(self, *, num_looks: int) -> None:
        super().__init__()
        self.num_looks = num_looks

    def is_finished(self) -> bool:
        self.num_looks -= 1
        return self.num_looks <= 0


def test_a_collective_waits_for_its_background_work() -> None:
    slow = SlowPeer(num_looks=5)
    engine_over(slow).sum({"a": 1.0})
    assert slow.num_looks == 0


def test_after_sigterm_a_collective_times_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alpro.distributed.multi_process._PATIENCE_AFTER_SIGTERM", 0.0)
    engine = engine_over(SlowPeer(num_looks=1_000_000))
    engine.shorten_timeouts()
    with pytest.raises(PeerLostError, match="no answer for 0 s after SIGTERM"):
        engine.sum({"a": 1.0})


def test_a_lack_of_memory_is_not_mistaken_for_a_lost_peer(peer: FakePeer) -> None:
    def refuse(tensor: Tensor) -> None:  # noqa: ARG001
        raise torch.OutOfMemoryError("too much")

    peer.sum_ = refuse  # type: ignore[method-assign]
    with pytest.raises(torch.OutOfMemoryError):
        engine_over(peer).sum({"a": 1.0})


class Listener:
    """In place of a watchdog."""

    waits_for_others = False

    def __init__(self) -> None:
        self.heard: list[str] = []

    def heartbeat(self) -> None:
        self.heard.append("alive")

    def close(self) -> None:
        self.heard.append("close")


def test_collectives_are_timed_and_signal_progress(
    peer: FakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([10.0, 12.5, 20.0, 20.5])
    monkeypatch.setattr("alpro.distributed.multi_process.time.perf_counter", lambda: next(clock))
    listener: Any = Listener()
    engine = DistributedEngine(peer, CPU, scale_loss=False, watchdog=listener)
    engine.sum({"a": 1.0})
    engine.gather_objects(None)
    assert engine.communication == 3.0
    assert listener.heard == ["alive"] * 2
    assert not listener.waits_for_others
    engine.close()
    assert listener.heard[2:] == ["close"]
    assert peer.messages[-1] == ("close", 0)
