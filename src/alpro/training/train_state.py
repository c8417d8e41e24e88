"""State of a training run, which any number of processes can resume."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alpro.datasets.batch_samplers import SamplerSegment, merge_segments
from alpro.distributed.engine import Engine
from alpro.training.checkpoints import load_restore, save_restore
from alpro.training.faults import UnreadableVideoLog
from alpro.training.objective import Objective
from alpro.training.reporting import Reporter
from alpro.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

_SENT_OTHERWISE = ("model", "optimizer")  # parts of the restore file that `Engine.prepare` sends
LOWER_IS_BETTER = ("loss", "medianR", "meanR")  # endings of metric names


def seed_everything(seed: int, *, rank: int = 0) -> None:
    """Seed PyTorch's generators; samples do not use them, but (seed, epoch, index)."""
    torch.manual_seed(seed + rank)


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every random generator that training uses on this rank."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restore a state of :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Progress of a run."""

    step: int = 0
    """Number of updates, in the numbering of this job."""
    num_steps: int
    """Updates of the whole schedule, in the same numbering."""
    best: float | None = None
    """Best value so far of the metric that chooses a checkpoint."""
    is_complete: bool = True
    """Whether the validation due after ``step`` is done as well."""
    num_skipped: int = 0
    """Updates skipped for a non-finite loss or gradient."""
    read: Sequence[SamplerSegment] = field(default_factory=list)
    """Batches read so far."""

    def advance(self, *, num_processes: int, num_batches: int) -> None:
        """Count an update of `num_batches` in each process."""
        self.step += 1
        self.read = merge_segments([*self.read, SamplerSegment(num_processes, num_batches)])

    def update_best(self, value: float, *, name: str) -> bool:
        """Record a metric; return whether it is the best so far. NaN is worst."""
        before = self.best
        if before is None or not (math.isfinite(value) and math.isfinite(before)):
            better = before is None or math.isfinite(value)
        else:
            better = value < before if name.endswith(LOWER_IS_BETTER) else value > before
        if better:
            self.best = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {**dataclasses.asdict(self), "read": [list(segment) for segment in self.read]}


def position_from(state: Mapping[str, Any], *, num_steps: int) -> TrainState:
    """Restore a `TrainState`, at the same share of a schedule of `num_steps`."""
    # With another world size an update has another number of samples.
    read = [SamplerSegment(*segment) for segment in state["read"]]
    step = max(1, state["step"] * num_steps // state["num_steps"])
    return TrainState(**{**state, "read": read, "step": step, "num_steps": num_steps})


def form_difference(there: Any, here: Any, *, place: str = "") -> str | None:
    """Describe the first difference in form of a stored state to one of this run; None for none.

    This run's keys must exist; tensors must have the same shape and dtype, numbers must not be
    negative, and list entries must have the form of the first one here.
    """
    # The type first, then its parts.
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
    """Return the saved state for this rank; None for a rank that is new.

    Args:
        ranks: for each saved rank its random state (``random``) and its count of unreadable videos
            (``ledger``).
        rank: of this process.
        size: processes of this job.
    """
    if rank >= len(ranks):
        return None
    own = ranks[rank]
    if rank > 0 or size >= len(ranks):
        return own
    # With fewer processes rank 0 takes over the counts of the ranks that are gone.
    ledgers = [own["ledger"], *(one["ledger"] for one in ranks[size:])]
    return {**own, "ledger": {**own["ledger"], "total": sum(one["total"] for one in ledgers)}}


def describe_world_size_change(
    stored: Mapping[str, Any], position: TrainState, *, before: int, now: int
) -> str:
    """Describe the effects of a resume with another number of processes."""
    sizes = ["1 process" if size == 1 else f"{size} processes" for size in (now, before)]
    return (
        f"the run goes on with {sizes[0]} instead of {sizes[1]}: at the same "
        "place in the data, but in another order, so its numbers will not be those of a run "
        f"without the change; update {stored['step']} of {stored['num_steps']} has become "
        f"{position.step} of {position.num_steps}"
    )


@dataclass(slots=True, kw_only=True)
class Restorer:
    """Saves and resumes the state of a run; rank 0 alone reads and writes files."""

    objective: Objective
    engine: Engine
    optimizer: Optimizer
    output: RunDirectory
    ledger: UnreadableVideoLog
    reporter: Reporter

    def save(self, position: TrainState) -> None:
        """Write a restore file; a collective."""
        # The files whose length it stores must be on the disk first.
        self.ledger.write(self.engine)
        self.reporter.flush()
        own = {"random": random_state(self.engine.device), "ledger": self.ledger.state_dict()}
        state = {
            "position": position.state_dict(),
            "num_lines": self.reporter.num_lines,
            "model": self.objective.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "engine": self.engine.state_dict(),
            "ranks": self.engine.gather_objects(own),
        }
        save_restore(self.output, state)
        self.engine.heartbeat()

    def resume(self, *, num_steps: int) -> TrainState | None:
        """Resume from the newest restore file; None without one. A collective in any case."""
        # Rank 0 alone reads the file, so that all ranks resume from the same one.
        state = None
        if self.output.is_writer:
            state = load_restore(self.output, difference=self._difference)
        if state is not None:
            self.objective.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])

        # Broadcast weights and moments as tensors, everything else as one object.
        self.engine.prepare(self.objective, self.optimizer)
        shared_state = state and {
            key: part for key, part in state.items() if key not in _SENT_OTHERWISE
        }
        shared_state = self.engine.gather_objects(shared_state)[0]
        if shared_state is None:
            self.reporter.start(step=0)
            return None

        # Position and loss scale are common to all ranks, generators and counts its own. Rank 0
        # drops later report lines.
        stored, ranks = shared_state["position"], shared_state["ranks"]
        position = position_from(stored, num_steps=num_steps)
        self.engine.load_state_dict(shared_state["engine"])
        rank, size = self.engine.rank, self.engine.size
        own = state_of_rank(ranks, rank=rank, size=size)
        if own is not None:
            set_random_state(own["random"], self.engine.device)
            self.ledger.load_state_dict(own["ledger"])
        num_lines, last_step = shared_state["num_lines"], stored["step"]
        self.reporter.start(step=position.step, num_lines=num_lines, last_step_before=last_step)

        # Another number of processes changes results: warn the user.
        logger.info("continuing %s after update %d", self.output.root, position.step)
        before = len(ranks)
        if before != size and rank == 0:
            logger.warning(describe_world_size_change(stored, position, before=before, now=size))
        return position

    def _difference(self, state: Mapping[str, Any]) -> str | None:
        """Describe the first part of a restore file that does not fit this run, if any."""
        # Every part must have the form of this run's own state.
        own = {"random": {"cpu": torch.get_rng_state()}, "ledger": self.ledger.state_dict()}
        whole = {
            "position": TrainState(step=1, num_steps=1).state_dict(),
            "num_lines": 0,
            "model": self.objective.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "engine": {},
            "ranks": [own],
        }
        if problem := form_difference(state, whole):
            return problem

        # The position must lie in the schedule.
        try:
            at = position_from(state["position"], num_steps=state["position"]["num_steps"])
        except (TypeError, ValueError, ZeroDivisionError):
            return "position is none"
        if at.step > at.num_steps:
            return f"position.step is {at.step} of {at.num_steps}"

        # The optimizer's moments must fit this run's parameters.
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
