"""The contract of a job of one or many processes, the engine of one, and number formats.

Shapes: B rows on this rank, G rows on all ranks together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alpro.distributed.watchdog import Watchdog

T = TypeVar("T")

RankFlags = Callable[[], Mapping[str, float]]
_AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_LOSS_SCALE = 1.0  # below it, what overflows in fp16 is not for a scale too large


class Engine(Protocol):
    """One process's view of the job. Ranks are global; the local rank never leaves this folder."""

    rank: int
    size: int
    device: torch.device
    communication: float
    """Seconds spent so far in exchanges with other ranks, waiting for them included."""

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:
        """Give every rank rank 0's parameters, buffers and optimizer state."""

    def backward(
        self, loss: Tensor, *, last_micro_step: bool, votes: RankFlags = dict
    ) -> dict[str, float]:
        """Accumulate gradients of ``loss``; the last micro-step averages them over the ranks.

        Args:
            loss: of this rank's batch.
            last_micro_step: of an update.
            votes: called once the gradients are there, for numbers that travel in the same message;
                every rank brings the same names.

        Returns:
            The votes' sums over the ranks; of other micro-steps nothing.
        """

    @property
    def own_gradients_finite(self) -> bool:
        """Whether this rank's gradients of the last update were, before they were averaged."""

    @property
    def may_overflow(self) -> bool:
        """Whether a non-finite gradient norm is one that fp16's loss scaling deals with."""

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        """Unscale, clip, update and clear the gradients.

        Args:
            optimizer: the one given to :meth:`prepare`.
            max_grad_norm: largest global norm, not positive for no clipping.

        Returns:
            The global gradient norm before clipping. Where it is not finite, nothing has been
            updated.
        """

    def skip(self, optimizer: Optimizer) -> None:
        """Clear the gradients without an update."""

    def all_gather(self, tensor: Tensor, *, counts: Sequence[int] | None = None) -> Tensor:
        """(B, ...) of each rank to (G, ...) in rank order; its backward sums over the ranks.

        Args:
            tensor: of this rank; B may differ between ranks.
            counts: B of every rank; None asks for them in a message of its own.
        """

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Sums over the ranks of named numbers; every rank must bring the same names."""

    def gather_objects(self, value: T) -> list[T]:
        """Every rank's value in rank order, on every rank."""

    def heartbeat(self) -> None:
        """Signal progress to the watchdog, as collectives do, too."""

    def shorten_timeouts(self) -> None:
        """Shorten the timeouts of collectives, after SIGTERM."""

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed run needs: the fp16 loss scale."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state made by :meth:`state_dict`."""

    def close(self) -> None:
        """Leave the job in order."""


class GradientEngine:
    """Backward and update, as one process does them; many processes add how they reduce."""

    def __init__(
        self, device: torch.device, *, scale_loss: bool, watchdog: Watchdog | None = None
    ) -> None:
        self.device = device
        self.communication = 0.0
        self._scaler = torch.amp.GradScaler(device.type, enabled=scale_loss)
        self._watchdog = watchdog
        self._parameters: list[nn.Parameter] = []
        self._own_gradients_finite = True

    def _take_parameters(self, optimizer: Optimizer) -> None:
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def _reduce(self, votes: Mapping[str, float]) -> dict[str, float]:
        """Average the gradients over the ranks, sum the votes; nothing to do for one rank."""
        return dict(votes)

    def backward(
        self, loss: Tensor, *, last_micro_step: bool, votes: RankFlags = dict
    ) -> dict[str, float]:
        """See :meth:`Engine.backward`."""
        self._scaler.scale(loss).backward()
        return self._reduce(votes()) if last_micro_step else {}

    @property
    def own_gradients_finite(self) -> bool:
        """See :attr:`Engine.own_gradients_finite`."""
        return self._own_gradients_finite

    @property
    def may_overflow(self) -> bool:
        """See :attr:`Engine.may_overflow`."""
        return self._scaler.is_enabled() and self._scaler.get_scale() >= SMALLEST_LOSS_SCALE

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        """See :meth:`Engine.step`."""
        self._scaler.unscale_(optimizer)
        limit = max_grad_norm if max_grad_norm > 0 else float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        if math.isfinite(norm):
            self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return norm

    def skip(self, optimizer: Optimizer) -> None:
        """See :meth:`Engine.skip`."""
        optimizer.zero_grad(set_to_none=True)

    def heartbeat(self) -> None:
        """See :meth:`Engine.heartbeat`."""
        if self._watchdog is not None:
            self._watchdog.heartbeat()

    def shorten_timeouts(self) -> None:
        """See :meth:`Engine.shorten_timeouts`; one process waits for nobody."""

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Engine.state_dict`."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Engine.load_state_dict`."""
        if state:
            self._scaler.load_state_dict(dict(state))

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        if self._watchdog is not None:
            self._watchdog.close()


class SingleProcess(GradientEngine):
    """The engine of a run with one process."""

    rank = 0
    size = 1

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:  # noqa: ARG002
        """See :meth:`Engine.prepare`."""
        self._take_parameters(optimizer)

    def step(self, optimizer: Optimizer, *, max_grad_norm: float) -> float:
        """See :meth:`Engine.step`."""
        norm = super().step(optimizer, max_grad_norm=max_grad_norm)
        self._own_gradients_finite = math.isfinite(norm)
        return norm

    def all_gather(
        self,
        tensor: Tensor,
        *,
        counts: Sequence[int] | None = None,  # noqa: ARG002
    ) -> Tensor:
        """See :meth:`Engine.all_gather`."""
        return tensor

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        """See :meth:`Engine.sum`."""
        return dict(totals)

    def gather_objects(self, value: T) -> list[T]:
        """See :meth:`Engine.gather_objects`."""
        return [value]


def usable_precision(wish: str, device: torch.device) -> str:
    """Return the precision to use: fp32 for fp16 on a CPU, which is some 180 times slower."""
    return "fp32" if wish == "fp16" and device.type == "cpu" else wish


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Context in which a forward pass runs; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST_TYPES[precision])
