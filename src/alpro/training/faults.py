"""Faults tolerated up to a limit: unreadable videos, non-finite losses and gradients."""

import dataclasses
import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from alpro.datasets.video_datasets import UnreadableVideo
from alpro.distributed.engine import Engine
from alpro.errors import InputError, PeerLostError, RunError
from alpro.training.atomic_io import append_lines, keep_lines, sync_file
from alpro.training.checkpoints import write_tensors
from alpro.training.objective import Batch, Objective
from alpro.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

NUM_LISTED = 10  # videos that the final message names
MAX_SKIPPED_IN_A_ROW = 10  # a model whose every loss is NaN does not recover
NUM_NAMED = 3  # ranks at fault that a message describes in full


class UnreadableVideoLog:
    """Counts replaced videos, lists them in a file, and stops a run with too many."""

    def __init__(
        self, output: RunDirectory, *, max_fraction: float, samples_per_epoch: int
    ) -> None:
        """Count for `samples_per_epoch` of this rank; `max_fraction` of them may be unreadable."""
        self._output = output
        self._limit = max_fraction * samples_per_epoch
        self._max_fraction = max_fraction
        self._samples_per_epoch = samples_per_epoch
        self._epoch = 0
        self._num_in_epoch = 0
        self._unwritten: list[UnreadableVideo] = []
        self._num_listed = 0
        self.total = 0
        """Unreadable videos of this rank since the run began, counted at each update."""

    def record(self, videos: Sequence[UnreadableVideo], *, epoch: int) -> None:
        """Count a batch's unreadable videos.

        Raises:
            InputError: this epoch's share of replaced samples exceeds the limit.
        """
        # The share is per epoch, the total per run.
        if epoch != self._epoch:
            self._epoch, self._num_in_epoch = epoch, 0
        self._num_in_epoch += len(videos)
        self._unwritten += videos
        self.total += len(videos)
        for video in videos:
            logger.warning("unreadable, thus replaced: %s: %s", video.video_id, video.reason)
        # Too many: the config probably names the wrong folder. List them, and stop.
        if self._num_in_epoch > self._limit:
            named = "\n".join(f"  {v.video_id}: {v.reason}" for v in self._unwritten[-NUM_LISTED:])
            self._append(self._unwritten)  # there is no next save; each rank writes its own
            self._unwritten = []
            raise InputError(
                f"{self._num_in_epoch} of the {self._samples_per_epoch} training samples of epoch "
                f"{epoch + 1} could not be read, more than max_unreadable_fraction "
                f"{self._max_fraction} allows; the last of them:\n{named}\n"
                "Repair or remove them, or raise max_unreadable_fraction."
            )

    def state_dict(self) -> dict[str, int]:
        """Counts for a resumed run."""
        return {
            "epoch": self._epoch,
            "num_in_epoch": self._num_in_epoch,
            "total": self.total,
            "num_listed": self._num_listed,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the counts, and drop lines that a killed run added later."""
        self._epoch, self._num_in_epoch = state["epoch"], state["num_in_epoch"]
        self.total, self._num_listed = state["total"], state["num_listed"]
        if self._output.is_writer:
            keep_lines(self._output.unreadable, self._num_listed)

    def write(self, engine: Engine) -> None:
        """Append the new videos of all ranks; a collective."""
        new = [video for part in engine.gather_objects(self._unwritten) for video in part]
        self._unwritten = []
        self._num_listed += len(new)
        if new and self._output.is_writer:
            self._append(new)

    def _append(self, videos: Sequence[UnreadableVideo]) -> None:
        lines = [json.dumps(dataclasses.asdict(video), ensure_ascii=False) for video in videos]
        append_lines(self._output.unreadable, lines)
        sync_file(self._output.unreadable)  # restore files store its length


@dataclasses.dataclass(slots=True)
class UpdateRecord:
    """This rank's batches and losses of the current update, for replay and messages."""

    step: int
    random: dict[str, Any]
    """State of the random generators before the update."""
    batches: list[Batch] = dataclasses.field(default_factory=list)
    losses: list[float] = dataclasses.field(default_factory=list)

    @property
    def is_finite(self) -> bool:
        """Whether all losses so far are finite."""
        return all(map(math.isfinite, self.losses))

    def describe(self, rank: int) -> str:
        """Describe this rank's losses and samples."""
        ids = ", ".join(name for batch in self.batches for name in batch.video_ids)
        losses = ", ".join(f"{loss:g}" for loss in self.losses)
        return f"rank {rank}: loss {losses}; its batch is of {ids}"


class NonfiniteGuard:
    """Stops a run at a non-finite loss or gradient, or skips the update."""

    def __init__(self, output: RunDirectory, *, policy: str, num_steps: int) -> None:
        """Set the policy, ``stop`` or ``skip``, and the length of the schedule."""
        self._output = output
        self._policy = policy
        self._num_steps = num_steps
        self._num_in_a_row = 0

    def passed(self) -> None:
        """Reset the count of consecutive skipped updates."""
        self._num_in_a_row = 0

    def handle_nonfinite(
        self, update: UpdateRecord, objective: Objective, *, engine: Engine, what: str
    ) -> None:
        """Handle an update with a non-finite loss or gradient (`what`); weights are unchanged.

        Raises:
            RunError: on the first rank at fault, if the run stops.
            PeerLostError: on the others.
        """
        # Find the ranks at fault by their own losses and gradients: embeddings carry non-finite
        # gradients to other ranks.
        is_faulty = not (update.is_finite if what == "loss" else engine.own_gradients_finite)
        gathered = engine.gather_objects((is_faulty, update.describe(engine.rank)))
        # If all are finite by themselves, their sum or norm has overflowed: all ranks are at fault.
        ranks = range(len(gathered))
        at_fault = [rank for rank in ranks if gathered[rank][0]] or list(ranks)

        # Skip the update, up to a number in a row.
        lines = "\n".join(f"  {gathered[rank][1]}" for rank in at_fault[:NUM_NAMED])
        more = f"\n  and {len(at_fault) - NUM_NAMED} more" if len(at_fault) > NUM_NAMED else ""
        message = f"update {update.step}: the {what} is not finite\n{lines}{more}"
        self._num_in_a_row += 1
        if self._policy == "skip" and self._num_in_a_row <= MAX_SKIPPED_IN_A_ROW:
            if engine.rank == 0:
                logger.warning("skipped %s", message)
            return

        # Save batches, generators and model for a replay; one rank reports the reason.
        if engine.rank in at_fault:
            self._save_batches(update, rank=engine.rank)
        if self._output.is_writer:
            state = {name: tensor.cpu() for name, tensor in objective.model.state_dict().items()}
            write_tensors(self._output.nonfinite / f"step_{update.step}_model.pt", state)
        engine.gather_objects(None)  # no rank ends before all have written
        if engine.rank != at_fault[0]:
            raise PeerLostError(f"rank {at_fault[0]} stops the run")
        row = f" ({self._num_in_a_row} in a row)" if self._policy == "skip" else ""
        raise RunError(
            f"{message}\nThe run stops here{row}. {self._output.nonfinite} holds the model as it "
            "was before this update, and the batches with the state of the random generators; "
            "alpro replay-batch --file FILE shows where the numbers go wrong. Look "
            "at the data, lower learning_rate, take another precision; or go on without such "
            "updates: the same command with --on_nonfinite skip."
        )

    def _save_batches(self, update: UpdateRecord, *, rank: int) -> None:
        state = {
            "step": update.step,
            "num_steps": self._num_steps,
            "random": update.random,
            "kinds": [type(batch).__name__ for batch in update.batches],
            "batches": [
                dataclasses.asdict(cast(Any, batch.to(torch.device("cpu"))))
                for batch in update.batches
            ],
        }
        write_tensors(self._output.nonfinite / f"step_{update.step}_rank_{rank}.pt", state)
