"""The engine of a job of many processes, over whatever carries its messages.

Shapes: B rows on this rank, G rows on all ranks together.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alpro.distributed.engine import GradientEngine
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
        """Whether what was exchanged last is there; only GPUs exchange in the background."""

    def close(self) -> None:
        """Leave the job in order."""


class DistributedEngine(GradientEngine):
    """One of several ranks.

    Gradients are reduced as one flat fp32 buffer per update, in parameter order. Fusing whatever
    gradients are ready at the moment, as Horovod's ``DistributedOptimizer`` does, changes the order
    of additions, and with it the last bits, from run to run once there are three ranks.
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
        self._deadline = math.inf  # of exchanges, by time.monotonic

    @contextmanager
    def _exchange(self) -> Iterator[Communicator]:
        """Context of a collective, complete at its end; its time counts as communication."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else computing counts as communication
        started = time.perf_counter()
        if self._watchdog is not None:
            self._watchdog.waits_for_others = True
        try:
            # Backends write into tensors of their own, maybe from another thread, which PyTorch
            # forbids for those made in inference mode.
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
        """Wait for what runs in the background, open to signals.

        Where a rank has ended, NCCL waits for it, and the launcher asks this process to end: it
        must not wait any longer than others need for an update.
        """
        while not self._communicator.is_finished():
            if time.monotonic() > self._deadline:
                raise RuntimeError(f"no answer for {_PATIENCE_AFTER_SIGTERM:g} s after SIGTERM")
            time.sleep(_PAUSE)

    def shorten_timeouts(self) -> None:
        """See :meth:`Engine.shorten_timeouts`."""
        self._deadline = time.monotonic() + _PATIENCE_AFTER_SIGTERM

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:
        """See :meth:`Engine.prepare`."""
        # Parameters and buffers first, then the optimizer: ranks may not know its tensors yet.
        self._take_parameters(optimizer)
        self._broadcast(list(task.state_dict().values()))
        own = _split_tensors(optimizer.state_dict())
        layout = (own.skeleton, own.shapes()) if self.rank == 0 else None
        first = self.gather_objects(layout)[0]
        assert first is not None
        skeleton, shapes = first
        tensors = own.tensors if self.rank == 0 else [shape.empty() for shape in shapes]
        self._broadcast(tensors)
        if self.rank > 0:
            optimizer.load_state_dict(_join_tensors(skeleton, tensors))

    def _broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Give every rank rank 0's values, as bytes, many tensors to a message."""
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

        # Judge this rank's own gradients before the sum hides which rank is at fault for it.
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
        """See :meth:`Engine.all_gather`."""
        known = self._counts(len(tensor)) if counts is None else counts
        return _GatherRows.apply(tensor, known, self)

    def _counts(self, num_rows: int) -> list[int]:
        """Every rank's number of rows."""
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
        """See :meth:`Engine.sum`."""
        names = sorted(totals)
        with self._exchange() as communicator:
            values = torch.tensor([totals[name] for name in names], dtype=torch.float64)
            communicator.sum_(values)
        return dict(zip(names, values.tolist(), strict=True))

    def gather_objects(self, value: T) -> list[T]:
        """See :meth:`Engine.gather_objects`."""
        with self._exchange() as communicator:
            return communicator.gather_objects(value)

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        super().close()
        self._communicator.close()


class _GatherRows(torch.autograd.Function):
    """Rows of every rank in rank order.

    The backward of ``hvd.allgather`` averages since Horovod 0.22, and that of
    ``torch.distributed`` does not exist. Here it sums: averaging the summed gradients of all ranks,
    as the engine does, then gives the gradient of the mean loss.
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


@dataclass(frozen=True, slots=True)
class _Shape:
    """A tensor without its numbers."""

    shape: torch.Size
    dtype: torch.dtype

    def empty(self) -> Tensor:
        """A tensor for the numbers."""
        return torch.empty(self.shape, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class _Split:
    """A nested state: its tensors, and what is around them, in which their numbers stand."""

    skeleton: Any
    tensors: list[Tensor]

    def shapes(self) -> list[_Shape]:
        """Shapes and types, with which another process can receive the tensors."""
        return [_Shape(tensor.shape, tensor.dtype) for tensor in self.tensors]


@dataclass(frozen=True, slots=True)
class _Place:
    """Place of a tensor in a skeleton."""

    index: int


def _split_tensors(state: Any) -> _Split:
    """Take the tensors out of nested dicts and lists."""
    tensors: list[Tensor] = []

    def skeleton(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            return _Place(len(tensors) - 1)
        if isinstance(value, dict):
            return {key: skeleton(part) for key, part in value.items()}
        if isinstance(value, list):
            return [skeleton(part) for part in value]
        return value

    return _Split(skeleton(state), tensors)


def _join_tensors(skeleton: Any, tensors: Sequence[Tensor]) -> Any:
    """Put tensors back where :func:`_split_tensors` took them from."""
    if isinstance(skeleton, _Place):
        return tensors[skeleton.index]
    if isinstance(skeleton, dict):
        return {key: _join_tensors(part, tensors) for key, part in skeleton.items()}
    if isinstance(skeleton, list):
        return [_join_tensors(part, tensors) for part in skeleton]
    return skeleton


def _as_bytes(tensor: Tensor) -> Tensor:
    """All of a tensor's bytes, (n,)."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _groups(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors in groups that fit into a message, in order."""
    group: list[Tensor] = []
    for tensor in tensors:
        if group and sum(one.nbytes for one in group) + tensor.nbytes > _BROADCAST_BYTES:
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group
