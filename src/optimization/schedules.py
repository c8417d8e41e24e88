"""Learning-rate schedules as pure functions of the update number, as the original computes them."""

from bisect import bisect_right
from collections.abc import Sequence

SMALLEST_LEARNING_RATE = 1e-8  # the original's floor; the last update of `linear` lands on it
STEP_DECAY = 0.5  # `multi_step`: factor for each milestone passed


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
        decay: ``linear``, ``invsqrt``, ``constant`` or ``multi_step``.
        learning_rate: the peak.
        num_train_steps: number of updates of the whole run.
        warmup_ratio: share of the run with a rising rate (``linear`` and ``invsqrt``).
        milestones: updates after which ``multi_step`` halves the rate, ascending.

    Raises:
        ValueError: for an unknown ``decay``.
    """
    warmup_steps = int(warmup_ratio * num_train_steps)
    if decay == "constant":
        factor = 1.0
    elif decay == "multi_step":
        factor = STEP_DECAY ** bisect_right(milestones, step - 1)
    elif decay == "linear":
        factor = _linear(step, warmup_steps=warmup_steps, num_train_steps=num_train_steps)
    elif decay == "invsqrt":
        factor = _inverse_square_root(step, warmup_steps=max(1, warmup_steps))
    else:
        raise ValueError(f"unknown decay {decay!r}")
    return max(learning_rate * factor, SMALLEST_LEARNING_RATE)


def _inverse_square_root(step: int, *, warmup_steps: int) -> float:
    return step / warmup_steps if step <= warmup_steps else (warmup_steps / step) ** 0.5


def _linear(step: int, *, warmup_steps: int, num_train_steps: int) -> float:
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (num_train_steps - step) / max(1, num_train_steps - warmup_steps))
