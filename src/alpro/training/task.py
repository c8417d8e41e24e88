"""The contract between the training loop and an objective."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from alpro.datasets.unreadable import UnreadableVideo


class Batch(Protocol):
    """What the loop needs of a batch, a dataclass; the rest is between data and task."""

    @property
    def video_ids(self) -> Sequence[str]:
        """One for each sample."""

    @property
    def unreadable(self) -> Sequence[UnreadableVideo]:
        """Videos that were replaced because they could not be read."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""


class Task(nn.Module):
    """One objective over one model; the loop knows nothing else.

    A subclass sets ``model``, whose state dict is what a checkpoint holds, and implements
    :meth:`forward` and :meth:`evaluate`, for its own kinds of batches and evaluation sets.
    """

    model: nn.Module

    def on_update_start(self, step: int) -> None:
        """Called before the forward passes of update ``step``, counted from 1."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Losses of a batch: ``{"loss": (), ...}``; the loop descends on ``loss``, logs all."""
        raise NotImplementedError

    def check_dry_run(self, losses: Mapping[str, float]) -> None:
        """Warn of what :meth:`forward` has told of the one batch of a dry run."""

    def evaluate(self, *data: Any) -> dict[str, float]:
        """Metrics on the task's validation sets, the same on every rank."""
        raise NotImplementedError
