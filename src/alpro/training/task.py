"""The contract between the training loop, an objective and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from alpro.datasets.batches import UnreadableVideo
from alpro.datasets.samplers import SamplerSegment


class Batch(Protocol):
    """A batch as the loop sees it, a dataclass; the rest is between data and task."""

    @property
    def video_ids(self) -> Sequence[str]:
        """One for each sample."""

    @property
    def unreadable(self) -> Sequence[UnreadableVideo]:
        """Videos that were replaced because they could not be read."""

    def to(self, device: torch.device) -> Batch:
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
        """Check the losses of a dry run's batch, and warn about anything suspicious."""

    def evaluate(self, *data: Any) -> dict[str, float]:
        """Metrics on the task's validation sets, the same on every rank."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """Lengths and intervals of a training, counted in updates unless said otherwise."""

    num_train_steps: int
    accumulation_steps: int
    """Micro-steps (batches) of one update."""
    mean_accumulation: bool
    """Average the losses of an update's micro-steps; the original sums them."""
    valid_steps: int
    save_steps: int
    """Updates between two restore files."""
    max_grad_norm: float
    """Largest global gradient norm, not positive for no clipping."""
    best_metric: str
    precision: str
    stop_after: int | None = None
    """Stop early after so many updates, on the schedule of the whole run (``debug``)."""

    @property
    def last_step(self) -> int:
        """Number of the run's last update."""
        return min(self.num_train_steps, self.stop_after or self.num_train_steps)


class BatchSampler(Protocol):
    """Order of a training set's batches on this rank, from any position on."""

    @property
    def batches_per_epoch(self) -> int:
        """Batches of this rank in one epoch."""

    @property
    def examples_per_epoch(self) -> int:
        """Examples of this rank in one epoch."""

    def resume(self, done: Sequence[SamplerSegment]) -> Self:
        """Return a sampler that begins after what these segments have read."""

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the keys of each batch, without end."""


@dataclass(frozen=True, slots=True)
class TrainingData:
    """A training set as the loop sees it: batches from any position on."""

    sampler: BatchSampler
    """The order of this rank's batches."""
    load: Callable[[BatchSampler], Iterable[Batch]]
    """Reads the batches in such an order."""
    _: KW_ONLY
    num_samples: int
    """Videos read in one epoch, over all ranks."""
    num_left_out: int = 0
    """Annotations that cannot be trained on."""
    description: Sequence[str] = ()
    """Contents of the sets, in lines for the log."""

    @property
    def samples_per_epoch(self) -> int:
        """Samples of this rank in one epoch."""
        return self.sampler.examples_per_epoch

    def start(self, done: Sequence[SamplerSegment]) -> Iterator[Batch]:
        """Yield batches without end, beginning after what has been read already."""
        return iter(self.load(self.sampler.resume(done)))
