"""Contracts between the training loop, objectives and data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from alpro.datasets.batch_samplers import SamplerSegment
from alpro.datasets.video_datasets import UnreadableVideo


class Batch(Protocol):
    """A batch, a dataclass, as the training loop sees it."""

    @property
    def video_ids(self) -> Sequence[str]:
        """Video id of each sample."""

    @property
    def unreadable(self) -> Sequence[UnreadableVideo]:
        """Unreadable videos, which were replaced."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""


class Objective(nn.Module):
    """One objective over one model, whose state dict a checkpoint holds.

    Subclasses set ``model`` and implement :meth:`forward` and :meth:`evaluate`.
    """

    model: nn.Module

    def on_update_start(self, step: int) -> None:
        """Hook before the forward passes of update ``step``, counted from 1."""

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Losses of a batch, ``{"loss": (), ...}``; ``loss`` is minimised, all are logged."""
        raise NotImplementedError

    def check_dry_run(self, losses: Mapping[str, float]) -> None:
        """Check the losses of a dry-run batch, and warn about anything suspicious."""

    def evaluate(self, *data: Any) -> dict[str, float]:
        """Metrics on the task's validation sets, the same on every rank."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Lengths and intervals of a training run, in updates."""

    num_train_steps: int
    accumulation_steps: int
    """Micro-steps (batches) of one update."""
    mean_accumulation: bool
    """Average the micro-steps' losses; the original sums them."""
    valid_steps: int
    """Updates between two validations with a numbered checkpoint."""
    save_steps: int
    """Updates between two restore files."""
    max_grad_norm: float
    """Largest global gradient norm; no clipping unless positive."""
    best_metric: str
    precision: str
    only_valid_steps: int = 0
    """Updates between further validations, which save only the best; 0 for none."""
    stop_after: int | None = None
    """Updates after which to stop, on the schedule of the whole run (``debug``)."""

    @property
    def last_step(self) -> int:
        """Number of the run's last update."""
        return min(self.num_train_steps, self.stop_after or self.num_train_steps)


class BatchSampler(Protocol):
    """Resumable order of a training set's batches on this rank."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank in one epoch."""

    @property
    def examples_per_epoch(self) -> int:
        """Examples of this rank in one epoch."""

    def resume(self, done: Sequence[SamplerSegment]) -> Self:
        """Return a sampler that begins after these segments."""

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the keys of each batch, endlessly."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training set, which can start at any position."""

    sampler: BatchSampler
    """Order of this rank's batches."""
    load: Callable[[BatchSampler], Iterable[Batch]]
    """Loads batches in that order."""
    _: KW_ONLY
    num_samples: int
    """Videos of one epoch, over all ranks."""
    num_left_out: int = 0
    """Annotations without use for training."""
    description: Sequence[str] = ()
    """Log lines about the sets."""

    def start(self, done: Sequence[SamplerSegment]) -> Iterator[Batch]:
        """Yield batches endlessly, after these segments."""
        return iter(self.load(self.sampler.resume(done)))
