"""Learning-rate schedules with the originals' formulas, as pure functions of the update number."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple

SMALLEST_LEARNING_RATE = 1e-8  # the originals' floor; the last update of `linear` lands on it
STEP_DECAY = 0.5  # `multi_step`: factor for each milestone passed


class _Run(NamedTuple):
    """Lengths in updates."""

    num_steps: int
    warmup_steps: int
    warmup_ratio: float
    milestones: Sequence[int]


def learning_rate_at(
    step: int,
    *,
    decay: str,
    learning_rate: float,
    num_train_steps: int,
    warmup_ratio: float,
    milestones: Sequence[int] = (),
) -> float:
    """Learning rate of one update.

    Args:
        step: number of the update, counted from 1.
        decay: name of the schedule: ``linear``, ``cosine``, ``warmup_cosine`` (T2VLP's: the cosine
            runs over the whole run, and the first update has rate 0), ``invsqrt``, ``constant``
            or ``multi_step``.
        learning_rate: the peak.
        num_train_steps: number of updates of the whole run.
        warmup_ratio: share of the run with a rising rate; ``constant`` and ``multi_step`` have
            none.
        milestones: updates after which ``multi_step`` halves the rate, ascending.

    Raises:
        ValueError: for an unknown ``decay``.
    """
    if decay not in _FACTORS:
        raise ValueError(f"unknown decay {decay!r}")
    run = _Run(num_train_steps, int(warmup_ratio * num_train_steps), warmup_ratio, milestones)
    return max(learning_rate * _FACTORS[decay](step, run), SMALLEST_LEARNING_RATE)


def _constant(_step: int, _run: _Run) -> float:
    return 1.0


def _linear(step: int, run: _Run) -> float:
    if step < run.warmup_steps:
        return step / run.warmup_steps
    return max(0.0, (run.num_steps - step) / max(1, run.num_steps - run.warmup_steps))


def _cosine(step: int, run: _Run) -> float:
    if step < run.warmup_steps:
        return step / run.warmup_steps
    progress = (step - run.warmup_steps) / max(1, run.num_steps - run.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _warmup_cosine(step: int, run: _Run) -> float:
    progress = (step - 1) / run.num_steps
    if progress < run.warmup_ratio:
        return progress / run.warmup_ratio
    return 0.5 * (1 + math.cos(math.pi * progress))


def _inverse_square_root(step: int, run: _Run) -> float:
    warmup_steps = max(1, run.warmup_steps)
    return step / warmup_steps if step <= warmup_steps else (warmup_steps / step) ** 0.5


def _multi_step(step: int, run: _Run) -> float:
    return STEP_DECAY ** bisect_right(run.milestones, step - 1)


_FACTORS: dict[str, Callable[[int, _Run], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
    "invsqrt": _inverse_square_root,
    "constant": _constant,
    "multi_step": _multi_step,
}
