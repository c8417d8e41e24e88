"""What the training loop is told: how long to train, and on what."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


class TrainingData:
    """What the loop needs of a training set: batches from any position on."""

    def __init__(
        self,
        start: Callable[[Sequence[SamplerSegment]], Iterator[Batch]],
        *,
        num_samples: int,
        batches_per_epoch: int,
        samples_per_epoch: int,
        num_left_out: int = 0,
        description: Sequence[str] = (),
    ) -> None:
        """Wrap a way of starting.

        Args:
            start: endless batches of this rank, beginning after what has been read already.
            num_samples: videos read in one epoch, over all ranks.
            batches_per_epoch: batches of this rank in one epoch.
            samples_per_epoch: samples of this rank in one epoch.
            num_left_out: annotations that nothing can be learnt from.
            description: what the sets hold, in lines for the log.
        """
        self.start = start
        self.num_samples = num_samples
        self.batches_per_epoch = batches_per_epoch
        self.samples_per_epoch = samples_per_epoch
        self.num_left_out = num_left_out
        self.description = description
