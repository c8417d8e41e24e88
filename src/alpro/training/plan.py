"""Input of the training loop: how long to train, and on what."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from alpro.datasets.samplers import SamplerSegment
from alpro.training.task import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How long to train, and how often to do what; counted in updates unless said otherwise."""

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


class TrainingData:
    """A training set as the loop needs it: batches from any position on."""

    def __init__(
        self,
        sampler: BatchSampler,
        load: Callable[[BatchSampler], Iterable[Batch]],
        *,
        num_samples: int,
        num_left_out: int = 0,
        description: Sequence[str] = (),
    ) -> None:
        """Join an order and what reads in it.

        Args:
            sampler: the order of this rank's batches.
            load: from such an order to the batches.
            num_samples: videos read in one epoch, over all ranks.
            num_left_out: annotations that nothing can be learnt from.
            description: what the sets hold, in lines for the log.
        """
        self._sampler = sampler
        self._load = load
        self.num_samples = num_samples
        self.batches_per_epoch = sampler.batches_per_epoch
        self.samples_per_epoch = sampler.examples_per_epoch
        self.num_left_out = num_left_out
        self.description = description

    def start(self, done: Sequence[SamplerSegment]) -> Iterator[Batch]:
        """Yield batches without end, beginning after what has been read already."""
        return iter(self._load(self._sampler.resume(done)))
