"""Learning rate by the update number, with ALPRO's formulas (``warmup_cosine``: T2VLP's)."""

import math
from bisect import bisect_right
from collections.abc import Sequence

SMALLEST_LEARNING_RATE = 1e-8  # the originals' floor; the last update of `linear` lands on it
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
    # The factor of the peak, by the formula of each schedule.
    warmup_steps = int(warmup_ratio * num_train_steps)
    if decay == "constant":
        factor = 1.0
    elif decay == "multi_step":
        factor = STEP_DECAY ** bisect_right(milestones, step - 1)
    elif decay == "invsqrt":
        rise = max(1, warmup_steps)
        factor = step / rise if step <= rise else (rise / step) ** 0.5
    elif decay == "warmup_cosine":
        share = (step - 1) / num_train_steps
        factor = share / warmup_ratio if share < warmup_ratio else _half_cosine(share)
    elif decay not in ("linear", "cosine"):
        raise ValueError(f"unknown decay {decay!r}")
    elif step < warmup_steps:
        factor = step / warmup_steps
    elif decay == "linear":
        factor = max(0.0, (num_train_steps - step) / max(1, num_train_steps - warmup_steps))
    else:
        progress = (step - warmup_steps) / max(1, num_train_steps - warmup_steps)
        factor = _half_cosine(min(1.0, progress))
    return max(learning_rate * factor, SMALLEST_LEARNING_RATE)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
