"""Engine of a multi-process job, over any communication backend.

Shapes: B rows on this rank, G rows on all ranks together.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alpro.distributed.engine import Engine
from alpro.distributed.watchdog import Watchdog
from alpro.errors import PeerLostError, is_out_of_memory

T = TypeVar("T")

_BROADCAST_BYTES = 1 << 28  # of one message
_PAUSE = 2e-4  # seconds between two looks at a GPU
_PATIENCE_AFTER_SIGTERM = 20.0  # seconds; torchrun kills after 30


class Communicator(Protocol):
    """A backend's collectives. Every rank calls the same methods in the same order.

    Tensors are contiguous, on the job's device or on the CPU. A failed exchange raises a
    ``RuntimeError``.
    """

    rank: int
    size: int

    def sum_(self, tensor: Tensor) -> None:
        """Replace float32 or float64 numbers by their sums over the ranks."""

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """uint8 (B, n) of each rank to (G, n) in rank order; ``counts`` are the B of all ranks."""

    def broadcast_(self, tensor: Tensor) -> None:
        """Replace uint8 numbers by those of rank 0."""

    def gather_objects(self, value: T) -> list[T]:
        """Every rank's value in rank order, on every rank."""

    def is_finished(self) -> bool:
        """Return whether the last collective is complete; only GPUs work in the background."""

    def close(self) -> None:
        """Leave the process group."""


class DistributedEngine(Engine):
    """One of several ranks.

    Gradients are reduced as one flat fp32 buffer per update, in parameter order. Fusing them when
    ready, like Horovod's ``DistributedOptimizer``, would change the order of additions
    and thus the last bits from run to run with three or more ranks.
    """

    def __init__(
        self,
        communicator: Communicator,
        device: torch.device,
        *,
        scale_loss: bool,
        watchdog: Watchdog | None = None,
    ) -> None:
        super().__init__(device, scale_loss=scale_loss, watchdog=watchdog)
        self._communicator = communicator
        self.rank = communicator.rank
        self.size = communicator.size
        self._deadline = math.inf  # of collectives, by time.monotonic

    @contextmanager
    def _exchange(self) -> Iterator[Communicator]:
        """Context of a collective, complete at its end; its time counts as communication."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else computation counts as communication
        started = time.perf_counter()
        if self._watchdog is not None:
            self._watchdog.waits_for_others = True
        try:
            # Backends write into tensors, maybe from another thread, which PyTorch forbids for
            # tensors created in inference mode.
            with torch.inference_mode(False), torch.no_grad():
                yield self._communicator
            self._await_exchange()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise PeerLostError(f"lost the connection to other ranks: {error}") from error
        self.communication += time.perf_counter() - started
        if self._watchdog is not None:
            self._watchdog.waits_for_others = False
            self._watchdog.heartbeat()

    def _await_exchange(self) -> None:
        """Wait for a background collective; signals are handled meanwhile."""
        # NCCL waits for a rank that has ended; after SIGTERM the launcher gives little time.
        while not self._communicator.is_finished():
            if time.monotonic() > self._deadline:
                raise RuntimeError(f"no answer for {_PATIENCE_AFTER_SIGTERM:g} s after SIGTERM")
            time.sleep(_PAUSE)

    def shorten_timeouts(self) -> None:
        self._deadline = time.monotonic() + _PATIENCE_AFTER_SIGTERM

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:
        super().prepare(task, optimizer)
        # Parameters and buffers have the same shapes on every rank.
        self._broadcast(list(task.state_dict().values()))
        # The optimizer's state may be empty on other ranks: its layout travels first.
        state = optimizer.state_dict()
        layout = _map_tensors(state, lambda x: x.to("meta")) if self.rank == 0 else None
        layout = self.gather_objects(layout)[0]
        if self.rank > 0:
            state = _map_tensors(layout, lambda x: torch.empty_like(x, device="cpu"))
        tensors: list[Tensor] = []
        _map_tensors(state, tensors.append)
        self._broadcast(tensors)
        if self.rank > 0:
            optimizer.load_state_dict(state)

    def _broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Broadcast rank 0's values in place, as bytes, many tensors per message."""
        for group in _groups(tensors):
            flat = torch.cat([_as_bytes(tensor.to(self.device)) for tensor in group])
            with self._exchange() as communicator:
                communicator.broadcast_(flat)
            parts = flat.split([tensor.nbytes for tensor in group])
            for tensor, part in zip(group, parts, strict=True):
                with torch.no_grad():
                    tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))

    def _reduce(self, votes: Mapping[str, float]) -> dict[str, float]:
        """Average the gradients; a parameter without a gradient anywhere keeps none."""
        # One flat message: the gradients, which of them are there, and the votes.
        parameters, names = self._parameters, sorted(votes)
        present = [float(p.grad is not None) for p in parameters]
        extra = [*present, *(votes[name] for name in names)]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        parts = [g.reshape(-1).float() for g in gradients]
        flat = torch.cat([*parts, torch.tensor(extra, device=self.device)])

        # Check this rank's own gradients before the sum hides which rank is at fault.
        largest = torch.linalg.vector_norm(flat, ord=float("inf"))
        self._own_gradients_finite = bool(torch.isfinite(largest))
        with self._exchange() as communicator:
            communicator.sum_(flat)

        # Divide by the number of ranks; a gradient that is nowhere stays None.
        *summed, extra_sums = flat.split([*(g.numel() for g in gradients), len(extra)])
        counts = extra_sums.tolist()
        for parameter, gradient, count in zip(parameters, summed, counts, strict=False):
            if count > 0:
                averaged = gradient.div_(self.size).view_as(parameter)
                parameter.grad = averaged.to(parameter.dtype)
        return dict(zip(names, counts[len(parameters) :], strict=True))

    def all_gather(self, tensor: Tensor, *, counts: Sequence[int] | None = None) -> Tensor:
        known = self._counts(len(tensor)) if counts is None else counts
        return _GatherRows.apply(tensor, known, self)

    def _counts(self, num_rows: int) -> list[int]:
        with self._exchange() as communicator:
            own = torch.tensor([[num_rows]], device=self.device)
            gathered = communicator.gather_rows(own.view(torch.uint8), [1] * self.size)
            return gathered.view(torch.int64).flatten().tolist()

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """(B, ...) of each rank to (G, ...), of any dtype, bit for bit."""
        width = math.prod(rows.shape[1:]) * rows.element_size()
        with self._exchange() as communicator:
            sent = _as_bytes(rows).view(len(rows), width)
            received = communicator.gather_rows(sent, counts)
            return received.view(-1).view(rows.dtype).view(sum(counts), *rows.shape[1:])

    def sum_(self, tensor: Tensor) -> None:
        """Replace float numbers by their sums over the ranks."""
        with self._exchange() as communicator:
            communicator.sum_(tensor)

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        names = sorted(totals)
        with self._exchange() as communicator:
            values = torch.tensor([totals[name] for name in names], dtype=torch.float64)
            communicator.sum_(values)
        return dict(zip(names, values.tolist(), strict=True))

    def gather_objects(self, value: T) -> list[T]:
        with self._exchange() as communicator:
            return communicator.gather_objects(value)

    def close(self) -> None:
        super().close()
        self._communicator.close()


class _GatherRows(torch.autograd.Function):
    """Differentiable all-gather in rank order.

    Its backward sums over the ranks (that of ``hvd.allgather`` averages, ``torch.distributed`` has
    none): the engine then averages the summed gradients to the gradient of the mean loss.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int], engine: DistributedEngine) -> Tensor:
        begins = [0, *accumulate(counts)]
        ctx.engine = engine
        ctx.own = slice(begins[engine.rank], begins[engine.rank + 1])
        return engine.gather_rows(rows, counts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        summed = gradient.float().clone(memory_format=torch.contiguous_format)
        ctx.engine.sum_(summed)
        return summed[ctx.own].to(gradient.dtype), None, None


def _map_tensors(state: Any, change: Callable[[Tensor], Any]) -> Any:
    """Replace the tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: _map_tensors(part, change) for key, part in state.items()}
    return [_map_tensors(part, change) for part in state] if isinstance(state, list) else state


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors, in order, in groups that fit into a message."""
    group: list[Tensor] = []
    for tensor in tensors:
        if group and sum(one.nbytes for one in group) + tensor.nbytes > _BROADCAST_BYTES:
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group
