"""Base of engines, the single-process engine, and precision.

Shapes: B rows on this rank, G rows on all ranks together.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alpro.distributed.watchdog import Watchdog

T = TypeVar("T")

RankFlags = Callable[[], Mapping[str, float]]
_AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_LOSS_SCALE = 1.0  # below it the scale is not the cause of an fp16 overflow


class Engine(ABC):
    """One process of the job. Ranks are global; local ranks stay inside this package.

    Backward pass and update are here; subclasses reduce the gradients over the ranks.
    """

    rank: int
    size: int

    def __init__(
        self, device: torch.device, *, scale_loss: bool, watchdog: Watchdog | None = None
    ) -> None:
        self.device = device
        self.communication = 0.0
        """Seconds spent in collectives so far, waiting included."""
        self._scaler = torch.amp.GradScaler(device.type, enabled=scale_loss)
        self._watchdog = watchdog
        self._parameters: list[nn.Parameter] = []
        self._own_gradients_finite = True

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002
        """Broadcast rank 0's parameters, buffers and optimizer state."""
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def backward(
        self, loss: Tensor, *, last_micro_step: bool, votes: RankFlags = dict
    ) -> dict[str, float]:
        """Accumulate gradients of ``loss``; the last micro-step averages them over the ranks.

        Args:
            loss: of this rank's batch.
            last_micro_step: of an update.
            votes: called after the backward pass; its numbers are summed in the same collective,
                under the same names on every rank.

        Returns:
            Sums of the votes over the ranks after the last micro-step, else nothing.
        """
        self._scaler.scale(loss).backward()
        return self._reduce(votes()) if last_micro_step else {}

    def _reduce(self, votes: Mapping[str, float]) -> dict[str, float]:
        """Average the gradients and sum the votes over the ranks; one rank keeps its own."""
        return dict(votes)

    @property
    def own_gradients_finite(self) -> bool:
        """Whether this rank's gradients of the last update were finite before averaging."""
        return self._own_gradients_finite

    @property
    def may_overflow(self) -> bool:
        """Whether fp16 loss scaling handles a non-finite gradient norm."""
        return self._scaler.is_enabled() and self._scaler.get_scale() >= SMALLEST_LOSS_SCALE

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        """Unscale, clip, update and clear the gradients.

        Args:
            optimizer: the one given to :meth:`prepare`.
            max_grad_norm: largest global norm, not positive for no clipping.

        Returns:
            The global gradient norm before clipping; weights are unchanged if it is not finite.
        """
        # Unscale before clipping; an update with a non-finite norm is left out.
        self._scaler.unscale_(optimizer)
        limit = max_grad_norm if max_grad_norm > 0 else float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        if math.isfinite(norm):
            self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def skip(self, optimizer: Optimizer) -> None:
        """Clear the gradients without an update."""
        optimizer.zero_grad(set_to_none=True)

    @abstractmethod
    def all_gather(self, tensor: Tensor, *, counts: Sequence[int] | None = None) -> Tensor:
        """(B, ...) of each rank to (G, ...) in rank order; its backward sums over the ranks.

        Args:
            tensor: of this rank; B may differ between ranks.
            counts: B of every rank; None gathers them first.
        """

    @abstractmethod
    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Sum named numbers over the ranks; every rank passes the same names."""

    @abstractmethod
    def gather_objects(self, value: T) -> list[T]:
        """Gather every rank's value, in rank order, on every rank."""

    def heartbeat(self) -> None:
        """Signal progress to the watchdog (collectives do so as well)."""
        if self._watchdog is not None:
            self._watchdog.heartbeat()

    def shorten_timeouts(self) -> None:  # noqa: B027  # one process waits for nobody
        """Shorten the timeouts of collectives, after SIGTERM."""

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs: the fp16 loss scale."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state made by :meth:`state_dict`."""
        if state:
            self._scaler.load_state_dict(dict(state))

    def close(self) -> None:
        """Leave the job cleanly."""
        if self._watchdog is not None:
            self._watchdog.close()


class SingleProcess(Engine):
    """Engine of a single-process run."""

    rank = 0
    size = 1

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        norm = super().step(optimizer, max_grad_norm=max_grad_norm)
        self._own_gradients_finite = math.isfinite(norm)
        return norm

    def all_gather(self, tensor: Tensor, *, counts: Sequence[int] | None = None) -> Tensor:  # noqa: ARG002
        return tensor

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        return dict(totals)

    def gather_objects(self, value: T) -> list[T]:
        return [value]


def usable_precision(wish: str, device: torch.device) -> str:
    """Return the precision to use; on a CPU fp32 replaces fp16, which is some 180 times slower."""
    return "fp32" if wish == "fp16" and device.type == "cpu" else wish


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast context of a forward pass; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST_TYPES[precision])
