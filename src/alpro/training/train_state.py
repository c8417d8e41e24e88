"""State of a training run, saved and resumed by any number of processes."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alpro.datasets.samplers import SamplerSegment, merge_segments
from alpro.distributed.engine import Engine
from alpro.training.checkpoints import load_restore, save_restore
from alpro.training.faults import UnreadableVideoLog
from alpro.training.reporting import Reporter
from alpro.training.run_directory import RunDirectory
from alpro.training.task import Task

logger = logging.getLogger(__name__)

_SENT_OTHERWISE = ("model", "optimizer")  # parts of the restore file that `Engine.prepare` sends
LOWER_IS_BETTER = ("loss", "medianR", "meanR")  # endings of metric names


def seed_everything(seed: int, *, rank: int = 0) -> None:
    """Seed PyTorch's generators: of weights, dropout, stochastic depth and sampled negatives.

    Data never uses them: a sample depends on (seed, epoch, index).
    """
    torch.manual_seed(seed + rank)


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every generator that training draws from on this rank."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Take up a state made by :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Progress of a run."""

    step: int = 0
    """Updates, in the numbering of this job."""
    num_steps: int
    """Updates of the whole schedule, in the same numbering."""
    best: float | None = None
    """The best value so far of the metric that chooses a checkpoint."""
    is_complete: bool = True
    """Whether the validation that is due after ``step`` is done, too."""
    num_skipped: int = 0
    """Updates that were left out because a loss or the gradient was not finite."""
    read: Sequence[SamplerSegment] = field(default_factory=list)
    """Batches that processes have read up to now."""

    def advance(self, *, num_processes: int, num_batches: int) -> None:
        """Count an update, for which each process has read so many batches."""
        self.step += 1
        self.read = merge_segments([*self.read, SamplerSegment(num_processes, num_batches)])

    def update_best(self, value: float, *, name: str) -> bool:
        """Return whether a metric is the best so far; any number is better than NaN."""
        before = self.best
        if before is None or not (math.isfinite(value) and math.isfinite(before)):
            better = before is None or math.isfinite(value)
        else:
            better = value < before if name.endswith(LOWER_IS_BETTER) else value > before
        if better:
            self.best = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return the position in plain numbers."""
        return {
            "step": self.step,
            "num_steps": self.num_steps,
            "best": self.best,
            "is_complete": self.is_complete,
            "num_skipped": self.num_skipped,
            "read": [list(stretch) for stretch in self.read],
        }


def position_from(state: Mapping[str, Any], *, num_steps: int) -> TrainState:
    """Restore a position from :meth:`TrainState.state_dict`.

    With another number of processes an update is of another number of samples, and the schedule has
    another number of updates, `num_steps`: the run continues at the same share of its schedule.
    """
    read = [SamplerSegment(*stretch) for stretch in state["read"]]
    step = max(1, state["step"] * num_steps // state["num_steps"])
    return TrainState(**{**state, "read": read, "step": step, "num_steps": num_steps})


def form_difference(there: Any, here: Any, *, place: str = "") -> str | None:
    """Compare the form of a stored state with that of a state of this run.

    The keys of this run must be there; tensors must have the same shape and type, numbers must be
    numbers that are not negative, and each entry of a list must have the form of the first one
    here.

    Returns:
        The first difference, in words; None if there is none.
    """
    # The type first, then what such a type consists of.
    name = place[1:] or "it"
    kinds = [kind for kind in (Tensor, dict, list, str) if isinstance(here, kind)]
    if kinds and not isinstance(there, kinds[0]):
        return f"{name} is {type(there).__name__}"
    if isinstance(here, Tensor):
        fits = there.shape == here.shape and there.dtype == here.dtype
        return None if fits else f"{name} is {there.dtype} {tuple(there.shape)}"
    if isinstance(here, dict):
        lacking = [str(key) for key in here if key not in there]
        pairs = [(f"{place}.{key}", there.get(key), value) for key, value in here.items()]
        if lacking:
            return f"{name} lacks {lacking[0]}"
    elif isinstance(here, list):
        pairs = [(f"{place}.{i}", part, here[0]) for i, part in enumerate(there) if here]
    else:
        is_number = isinstance(there, int | float) and not there < 0
        wanted = isinstance(here, int) and not isinstance(here, bool)
        return f"{name} is {there!r:.40}" if wanted and not is_number else None
    problems = (form_difference(part, value, place=at) for at, part, value in pairs)
    return next(filter(None, problems), None)


def state_of_rank(
    ranks: Sequence[Mapping[str, Any]], *, rank: int, size: int
) -> Mapping[str, Any] | None:
    """Return the saved per-rank state for this rank; None for one that was not there before.

    If the job has fewer processes now, rank 0 also takes over the counts of unreadable videos of
    those that have gone.

    Args:
        ranks: for each rank the states of its generators (``random``) and its count of unreadable
            videos (``ledger``).
        rank: of this process.
        size: processes of this job.
    """
    if rank >= len(ranks):
        return None
    own = ranks[rank]
    if rank > 0 or size >= len(ranks):
        return own
    ledgers = [own["ledger"], *(one["ledger"] for one in ranks[size:])]
    return {**own, "ledger": {**own["ledger"], "total": sum(one["total"] for one in ledgers)}}


def describe_world_size_change(
    stored: Mapping[str, Any], position: TrainState, *, before: int, now: int
) -> str:
    """Say what a resume with another number of processes changes."""
    sizes = ["1 process" if size == 1 else f"{size} processes" for size in (now, before)]
    return (
        f"the run goes on with {sizes[0]} instead of {sizes[1]}: at the same "
        "place in the data, but in another order, so its numbers will not be those of a run "
        f"without the change; update {stored['step']} of {stored['num_steps']} has become "
        f"{position.step} of {position.num_steps}"
    )


@dataclass(slots=True, kw_only=True)
class Restorer:
    """Writes restore files, and continues from them; rank 0 alone touches them."""

    task: Task
    engine: Engine
    optimizer: Optimizer
    output: RunDirectory
    ledger: UnreadableVideoLog
    reporter: Reporter

    def save(self, position: TrainState) -> None:
        """Write a restore file; every rank must call this."""
        # The files that it counts lines of must be on the disk first.
        self.ledger.write(self.engine)
        self.reporter.flush()
        own = {"random": random_state(self.engine.device), "ledger": self.ledger.state_dict()}
        state = {
            "position": position.state_dict(),
            "num_lines": self.reporter.num_lines,
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "engine": self.engine.state_dict(),
            "ranks": self.engine.gather_objects(own),
        }
        save_restore(self.output, state)
        self.engine.heartbeat()

    def resume(self, *, num_steps: int) -> TrainState | None:
        """Resume from the newest restore file; None where there is none.

        Every rank must call this, whether there is a restore file or not.
        """
        # Rank 0 alone reads the file, so that all resume from the same one.
        state = None
        if self.output.is_writer:
            state = load_restore(self.output, difference=self._difference)
        if state is not None:
            self.task.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])

        # Weights and moments travel as tensors, everything else as one object.
        self.engine.prepare(self.task, self.optimizer)
        shared_state = state and {
            key: part for key, part in state.items() if key not in _SENT_OTHERWISE
        }
        shared_state = self.engine.gather_objects(shared_state)[0]
        if shared_state is None:
            self.reporter.start(step=0)
            return None

        # Each rank restores its own generators and counts; rank 0 drops later lines of reports.
        position = self._take(shared_state, num_steps=num_steps)
        self.reporter.start(
            step=position.step,
            num_lines=shared_state["num_lines"],
            last_step_before=shared_state["position"]["step"],
        )
        return position

    def _difference(self, state: Mapping[str, Any]) -> str | None:
        """Name the first part of a restore file that this run could not have written, if any."""
        # The form of every part must be that of this run's own state.
        own = {"random": {"cpu": torch.get_rng_state()}, "ledger": self.ledger.state_dict()}
        whole = {
            "position": TrainState(step=1, num_steps=1).state_dict(),
            "num_lines": 0,
            "model": self.task.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "engine": {},
            "ranks": [own],
        }
        if problem := form_difference(state, whole):
            return problem

        # The position must be one of the schedule.
        try:
            at = position_from(state["position"], num_steps=state["position"]["num_steps"])
        except (TypeError, ValueError, ZeroDivisionError):
            return "position is none"
        if at.step > at.num_steps:
            return f"position.step is {at.step} of {at.num_steps}"

        # The optimizer's moments must be of this run's parameters.
        groups, stored = self.optimizer.param_groups, state["optimizer"]["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in stored]:
            return "optimizer.param_groups are of other parameters"
        parameters = [parameter for group in groups for parameter in group["params"]]
        for number, moments in state["optimizer"]["state"].items():
            if number not in range(len(parameters)) or not isinstance(moments, dict):
                return f"optimizer.state.{number} is of no parameter"
            shapes = [tuple(x.shape) for x in moments.values() if isinstance(x, Tensor)]
            if not set(shapes) <= {(), tuple(parameters[number].shape)}:
                return f"optimizer.state.{number} is of another shape"
        return None if state["ranks"] else "ranks is empty"

    def _take(self, state: Mapping[str, Any], *, num_steps: int) -> TrainState:
        # Position and loss scale are the same on every rank, generators and counts its own.
        rank, size = self.engine.rank, self.engine.size
        position = position_from(state["position"], num_steps=num_steps)
        self.engine.load_state_dict(state["engine"])
        own = state_of_rank(state["ranks"], rank=rank, size=size)
        if own is not None:
            set_random_state(own["random"], self.engine.device)
            self.ledger.load_state_dict(own["ledger"])
        logger.info("continuing %s after update %d", self.output.root, position.step)
        # Another number of processes changes the numbers, which the user should know.
        before = len(state["ranks"])
        if before != size and rank == 0:
            stored = state["position"]
            logger.warning(describe_world_size_change(stored, position, before=before, now=size))
        return position
