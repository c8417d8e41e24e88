"""What the rest of the project may ask of a communication backend.

Shapes: B rows on this rank, G rows on all ranks together.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")


class Engine(Protocol):
    """One process's view of the job. Ranks are global; the local rank never leaves this folder."""

    rank: int
    size: int
    device: torch.device

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:
        """Give every rank rank 0's parameters, buffers and optimizer state."""

    def backward(self, loss: Tensor, *, last_micro_step: bool) -> None:
        """Accumulate gradients of ``loss``; the last micro-step averages them over the ranks."""

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        """Unscale, clip, update and clear the gradients.

        Args:
            optimizer: the one given to :meth:`prepare`.
            max_grad_norm: largest global norm, not positive for no clipping.

        Returns:
            The global gradient norm before clipping. It is not finite where fp16 overflowed, and
            then the update has been skipped.
        """

    def all_gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of each rank to (G, ...) in rank order; its backward sums over the ranks."""

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Sums over the ranks of named numbers; every rank must bring the same names."""

    def gather_objects(self, value: T) -> list[T]:
        """Every rank's value in rank order, on every rank."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs of the engine: the fp16 loss scale."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state made by :meth:`state_dict`."""

    def close(self) -> None:
        """Leave the job in order."""


class GradientEngine:
    """Backward and update, as every backend does them; a backend adds how gradients are reduced."""

    def __init__(self, device: torch.device, *, scale_loss: bool) -> None:
        self.device = device
        self._scaler = torch.amp.GradScaler(device.type, enabled=scale_loss)
        self._parameters: list[nn.Parameter] = []

    def _take_parameters(self, optimizer: Optimizer) -> None:
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def _reduce_gradients(self) -> None:
        """Average the gradients over the ranks; nothing to do for one rank."""

    def backward(self, loss: Tensor, *, last_micro_step: bool) -> None:
        """See :meth:`Engine.backward`."""
        self._scaler.scale(loss).backward()
        if last_micro_step:
            self._reduce_gradients()

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        """See :meth:`Engine.step`."""
        self._scaler.unscale_(optimizer)
        limit = max_grad_norm if max_grad_norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Engine.state_dict`."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Engine.load_state_dict`."""
        if state:
            self._scaler.load_state_dict(dict(state))


class SingleProcess(GradientEngine):
    """The engine of a run with one process."""

    rank = 0
    size = 1

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002
        """See :meth:`Engine.prepare`."""
        self._take_parameters(optimizer)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See :meth:`Engine.all_gather`."""
        return tensor

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        """See :meth:`Engine.sum`."""
        return dict(totals)

    def gather_objects(self, value: T) -> list[T]:
        """See :meth:`Engine.gather_objects`."""
        return [value]

    def close(self) -> None:
        """See :meth:`Engine.close`."""
