"""Where a training run stands, and how it is taken up by another number of processes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from alpro.datasets.samplers import SamplerSegment, merge_segments

LOWER_IS_BETTER = ("loss", "medianR", "meanR")  # endings of metric names


@dataclass(slots=True, kw_only=True)
class TrainState:
    """How far a run has come."""

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
        """Whether a metric is better than ever, and then the one to beat.

        Any number is better than one that is not finite.
        """
        before = self.best
        if before is None or not (math.isfinite(value) and math.isfinite(before)):
            better = before is None or math.isfinite(value)
        else:
            better = value < before if name.endswith(LOWER_IS_BETTER) else value > before
        if better:
            self.best = value
        return better

    def state_dict(self) -> dict[str, Any]:
        """The position in plain numbers."""
        return {
            "step": self.step,
            "num_steps": self.num_steps,
            "best": self.best,
            "is_complete": self.is_complete,
            "num_skipped": self.num_skipped,
            "read": [list(stretch) for stretch in self.read],
        }


def position_from(state: Mapping[str, Any], *, num_steps: int) -> TrainState:
    """The position of a state made by :meth:`Position.state_dict`.

    With another number of processes an update is of another number of samples, and the schedule has
    another number of updates. The run then goes on at the same share of its schedule.

    Args:
        state: the stored position.
        num_steps: updates of the whole schedule now.
    """
    read = [SamplerSegment(*stretch) for stretch in state["read"]]
    step = max(1, state["step"] * num_steps // state["num_steps"])
    return TrainState(**{**state, "read": read, "step": step, "num_steps": num_steps})


def form_difference(there: Any, here: Any, *, place: str = "") -> str | None:
    """Compare the form of a stored state with that of a state of this run.

    Args:
        there: what is stored.
        here: the same of this run: its keys must be there; tensors must have the same shape and
            type, numbers must be numbers that are not negative, and each entry of a list must have
            the form of the first one here.
        place: of both in the whole.

    Returns:
        The first difference, in words; None if there is none.
    """
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
    found = (form_difference(part, value, place=at) for at, part, value in pairs)
    return next((problem for problem in found if problem), None)


def state_of_rank(
    ranks: Sequence[Mapping[str, Any]], *, rank: int, size: int
) -> Mapping[str, Any] | None:
    """What a rank goes on with of what the ranks have stored, each for itself.

    Args:
        ranks: for each rank the states of its generators (``random``) and its count of unreadable
            videos (``ledger``).
        rank: of this process.
        size: processes of this job.

    Returns:
        None for a rank that was not there before. If the job has fewer processes now, rank 0 also
        takes over the counts of those that have gone.
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
    """What the user should know of a run that goes on with another number of processes.

    Args:
        stored: the position as it was stored.
        position: the same in the numbering of this job.
        before: processes that stored it.
        now: processes of this job.
    """
    return (
        f"the run goes on with {_processes(now)} instead of {_processes(before)}: at the same "
        "place in the data, but in another order, so its numbers will not be those of a run "
        f"without the change; update {stored['step']} of {stored['num_steps']} has become "
        f"{position.step} of {position.num_steps}"
    )


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"
