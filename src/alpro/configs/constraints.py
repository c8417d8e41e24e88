"""Rules between config keys, and rules for one key that need an explanation.

A rule applies only if all values it needs are valid by themselves. Keys of a family's files are
prefixed with the key that names the file: ``clip_config.hidden_size``.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import PurePath
from typing import Any

from alpro.configs.downstream import annotation_in
from alpro.errors import listed

_TABLES = "that ends in .jsonl, .json, .csv, .tsv or .parquet"
_PROCESSES_PER_CORE = 16  # that are started at most; more than 2 seldom help
_NOT_RANDOM = ("uniform", "nlvl_uniform", "start", "middle", "end")  # sampling strategies
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

DOWNSTREAM: tuple[Constraint, ...] = (
    Constraint(
        ("train_n_clips", "random_sample_clips", "frm_sampling_strategy"),
        lambda clips, random, strategy: clips > 1 and random and strategy in _NOT_RANDOM,
        "all clips of a video would have the same frames",
        "Set random_sample_clips to 0, for clips of equal parts, or frm_sampling_strategy to rand.",
        training_only=True,
    ),
    Constraint(
        ("inference_model_step",),
        lambda step: "/" in step,
        "it is part of the name model_step_<...>.pt in output_dir/ckpt",
        "Give best, last or a number; --e2e_weights_path names any other file.",
    ),
)


# Test sets of one file name would share a results folder.
def _named_alike(first: Any, second: Any, task: str | None = None) -> bool:
    one, other = annotation_in(first, task), annotation_in(second, task)
    return one is not None and other is not None and PurePath(one).stem == PurePath(other).stem


def _distinct_names(*task: str) -> Constraint:
    return Constraint(
        ("test_datasets.*.txt", "test_datasets.*.txt", *task),
        _named_alike,
        "results go to results_<name of the annotation file>, the same folder for both",
        "Give one file another name; a link to it will do.",
        training_only=True,
    )


RETRIEVAL: tuple[Constraint, ...] = (
    Constraint(
        ("max_n_example_per_group",),
        lambda size: size != 1,
        "the losses of retrieval pair each video with one caption",
        "Set it to 1; captions of one video are rows of their own.",
    ),
    Constraint(
        ("use_itc", "use_itm"),
        lambda contrastive, matching: not (contrastive or matching),
        "no loss is left to train with",
        "Set use_itc or use_itm to 1.",
    ),
    Constraint(
        ("itm_start_ratio", "use_itc"),
        lambda start, contrastive: start > 0 and not contrastive,
        "before the matching loss sets in there would be no loss",
        "Set use_itc to 1 or itm_start_ratio to 0.",
    ),
    Constraint(
        ("*_datasets.*.txt",),
        lambda path: not isinstance(path, str),
        "retrieval reads its captions from one file per set",
        f"Give txt the path of a file {_TABLES}.",
        training_only=True,
    ),
    _distinct_names(),
)


def _no_questions(txt: Any, task: str) -> str:
    if txt is None:
        return "question answering reads its questions from one file per set"
    return f"the map has no entry {task}, only {listed(list(txt))}" if txt else "the map is empty"


QUESTION_ANSWERING: tuple[Constraint, ...] = (
    Constraint(
        ("*_datasets.*.txt", "task"),
        lambda txt, task: annotation_in(txt, task) is None,
        _no_questions,
        f"Give txt the path of a file {_TABLES}, or a map of tasks to paths with an entry for this"
        " task.",
        training_only=True,
    ),
    _distinct_names("task"),
)
