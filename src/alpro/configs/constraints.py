"""Rules between config keys, and rules for one key that need an explanation.

A rule applies only if all values it needs are valid by themselves. Keys of a family's files are
prefixed with the key that names the file: ``encoder_config.width``.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

_PROCESSES_PER_CORE = 16  # that are started at most; more than 2 seldom help
_ALWAYS_ALLOWED = 64  # processes or threads, on a machine of few cores as well


@dataclass(frozen=True)
class Constraint:
    """One rule: its keys, its condition, its reason, and the remedy."""

    keys: tuple[str, ...]
    """The first ones may be patterns, ``*_datasets.*.txt``: the rule holds for each match. The same
    pattern twice is a rule about each pair of matches, different ones are parts of one set."""
    broken: Callable[..., bool]
    """Receives the values of `keys`, in order."""
    reason: str | Callable[..., str]
    """A text, or a function that makes one of the values of `keys`."""
    remedy: str
    training_only: bool = False
    """The rule concerns keys that inference does not read."""

    def explain(self, *values: Any) -> str:
        """Return the reason why these values are not allowed."""
        return self.reason if isinstance(self.reason, str) else self.reason(*values)

    def violations(self, values: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return the keys of each violation; absent or invalid values violate nothing."""
        if self.training_only and values.get("do_inference"):
            return []
        # Expand the patterns; every plain key must have a valid value.
        others = tuple(key for key in self.keys if "*" not in key)
        if any(key not in values for key in others):
            return []
        candidates = [(*keys, *others) for keys in self._matches(values)]
        return [keys for keys in candidates if self.broken(*(values[key] for key in keys))]

    def _matches(self, keys: Iterable[str]) -> Iterable[tuple[str, ...]]:
        """Keys that the patterns match together; one empty tuple without patterns."""
        patterns = [key for key in self.keys if "*" in key]
        if not patterns:
            return [()]
        matches = fnmatch.filter(keys, patterns[0])
        if len(set(patterns)) < len(patterns):
            return combinations(matches, len(patterns))
        # Different patterns: one match gives the set, the patterns its parts.
        parts = [pattern.rpartition(".")[2] for pattern in patterns]
        entries = [match.rpartition(".")[0] for match in matches]
        return [tuple(f"{entry}.{part}" for part in parts) for entry in entries]


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _too_many(wanted: int) -> bool:
    return wanted > max(_ALWAYS_ALLOWED, _PROCESSES_PER_CORE * _num_cores())


def _why_too_many(wanted: int) -> str:
    return f"so many cannot work at once on {_num_cores()} cores, {wanted:,} would only wait"


SHARED: tuple[Constraint, ...] = (
    *(
        Constraint((key,), _too_many, _why_too_many, "Give about as many as there are cores.")
        for key in ("n_workers", "num_threads")
    ),
    Constraint(
        ("frm_sampling_strategy", "num_frm"),
        lambda strategy, frames: strategy == "headtail" and frames % 2 == 1,
        "headtail takes half of the frames from each half of the video",
        "Make num_frm even.",
    ),
    Constraint(
        ("frm_sampling_strategy", "sample_rate"),
        lambda strategy, rate: (strategy == "interval") != (rate > 0),
        "the rate is that of interval, which needs one, and of no other sampling",
        "Set frm_sampling_strategy to interval and sample_rate to 1 or more, or sample_rate to 0.",
    ),
    Constraint(
        ("img_input_format",),
        lambda channels: channels != "RGB",
        "videos are decoded to RGB and the released weights expect it",
        'Set it to "RGB".',
    ),
    Constraint(
        ("grad_norm",),
        lambda norm: norm != -1 and norm <= 0,
        "gradients cannot be clipped to a norm that is not positive",
        "Give a number above 0, or -1 for no clipping.",
    ),
    Constraint(
        ("decay", "step_decay_epochs"),
        lambda decay, epochs: decay == "multi_step" and not epochs,
        "multi_step needs the epochs after which the learning rate is halved",
        "Give step_decay_epochs, as in [6, 8].",
    ),
)
