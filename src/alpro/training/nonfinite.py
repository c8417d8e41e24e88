"""What to do about a loss or a gradient norm that is not finite."""

import dataclasses
import logging
import math
from typing import Any, cast

import torch

from alpro.distributed.engine import Engine
from alpro.errors import PeerLostError, RunError
from alpro.training.checkpoints import write_tensors
from alpro.training.run_directory import RunDirectory
from alpro.training.task import Batch, Task

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 10  # a model whose every loss is NaN does not recover
NUM_NAMED = 3  # ranks at fault that a message tells about in full


@dataclasses.dataclass(slots=True)
class UpdateRecord:
    """What this rank knows of the update in hand."""

    step: int
    random: dict[str, Any]
    """State of the generators before it."""
    batches: list[Batch] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)

    @property
    def is_finite(self) -> bool:
        """Whether all losses so far are."""
        return all(map(math.isfinite, self.losses))

    def describe(self, rank: int) -> str:
        """This rank's losses and samples, for a message."""
        ids = ", ".join(name for batch in self.batches for name in batch.video_ids)
        losses = ", ".join(f"{loss:g}" for loss in self.losses)
        return f"rank {rank}: loss {losses}; its batch is of {ids}"


class NonfiniteGuard:
    """Stops a run at a loss or gradient that is not finite, or skips the update."""

    def __init__(self, output: RunDirectory, *, policy: str, num_steps: int) -> None:
        """Set the policy.

        Args:
            output: receives the batches of the update that stopped a run.
            policy: ``stop`` or ``skip``.
            num_steps: updates of the whole schedule.
        """
        self._output = output
        self._policy = policy
        self._num_steps = num_steps
        self._num_in_a_row = 0

    def passed(self) -> None:
        """Note an update without fault."""
        self._num_in_a_row = 0

    def handle_nonfinite(
        self, attempt: UpdateRecord, task: Task, *, engine: Engine, what: str
    ) -> None:
        """Deal with a faulty update, of which nothing has reached the weights; on every rank.

        Args:
            attempt: the update.
            task: whose model met it.
            engine: the job.
            what: is not finite: "loss" or "gradient".

        Raises:
            RunError: on the first rank at fault, if the run shall stop.
            PeerLostError: then on the others.
        """
        # A loss spoils the gradients of all ranks whose embeddings it has seen.
        is_mine = not (attempt.is_finite if what == "loss" else engine.own_gradients_finite)
        gathered = engine.gather_objects((is_mine, attempt.describe(engine.rank)))
        # Of numbers that are finite on every rank the sum, or the norm, may be too large.
        at_fault = [rank for rank, (guilty, _) in enumerate(gathered) if guilty] or [
            *range(len(gathered))
        ]
        lines = "\n".join(f"  {gathered[rank][1]}" for rank in at_fault[:NUM_NAMED])
        more = f"\n  and {len(at_fault) - NUM_NAMED} more" if len(at_fault) > NUM_NAMED else ""
        message = f"update {attempt.step}: the {what} is not finite\n{lines}{more}"
        self._num_in_a_row += 1
        if self._policy == "skip" and self._num_in_a_row <= MAX_SKIPPED_IN_A_ROW:
            if engine.rank == 0:
                logger.warning("skipped %s", message)
            return
        if engine.rank in at_fault:
            self._save_batches(attempt, rank=engine.rank)
        if self._output.is_writer:
            self._save_model(attempt.step, task)
        engine.gather_objects(None)  # nobody ends before all have written
        if engine.rank != at_fault[0]:
            raise PeerLostError(f"rank {at_fault[0]} stops the run")
        row = f" ({self._num_in_a_row} in a row)" if self._policy == "skip" else ""
        raise RunError(
            f"{message}\nThe run stops here{row}. {self._output.nonfinite} holds the model as it "
            "was before this update, and the batches with the state of the random generators; "
            "alpro replay-batch --file FILE tells where the numbers go wrong. Look "
            "at the data, lower learning_rate, take another precision; or go on without such "
            "updates: the same command with --on_nonfinite skip."
        )

    def _save_batches(self, attempt: UpdateRecord, *, rank: int) -> None:
        state = {
            "step": attempt.step,
            "num_steps": self._num_steps,
            "random": attempt.random,
            "kinds": [type(batch).__name__ for batch in attempt.batches],
            "batches": [
                dataclasses.asdict(cast(Any, batch.to(torch.device("cpu"))))
                for batch in attempt.batches
            ],
        }
        path = self._output.nonfinite / f"step_{attempt.step}_rank_{rank}.pt"
        write_tensors(path, state)

    def _save_model(self, step: int, task: Task) -> None:
        state = {name: tensor.cpu() for name, tensor in task.model.state_dict().items()}
        path = self._output.nonfinite / f"step_{step}_model.pt"
        write_tensors(path, state)
