"""The contract between the training loop and an objective."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class Task(nn.Module):
    """One objective over one model; the loop knows nothing else.

    A subclass sets ``model``, whose state dict is what a checkpoint holds, and implements
    :meth:`forward` and :meth:`evaluate`.
    """

    model: nn.Module
    metric_names: Iterable[str] = ()
    """Names that :meth:`evaluate` reports; the best checkpoint is chosen by one of them."""

    def begin_update(self, step: int) -> None:
        """Called before the forward passes of update ``step``, counted from 1."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Losses of a batch: ``{"loss": (), ...}``; the loop descends on ``loss``, logs all."""
        raise NotImplementedError

    def evaluate(self, data: Any) -> dict[str, float]:
        """Metrics on a validation set, the same on every rank."""
        raise NotImplementedError
