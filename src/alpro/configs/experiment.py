"""Config of any experiment, and options that several tasks share."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.fields import Constraint, option
from alpro.configs.shared_options import (
    MAX_BATCH,
    DataOptions,
    ModelOptions,
    OptimizationOptions,
    RunOptions,
    ValidationOptions,
    VideoOptions,
)

LOCAL, GLOBAL = "local", "global"
_PROCESSES_PER_CORE = 16  # that are started at most; more than 2 seldom help
_ALWAYS_ALLOWED = 64  # processes or threads, on a machine of few cores as well


@dataclass(kw_only=True)
class ContrastOptions:
    """Contrastive loss (VTC)."""

    TOPIC: ClassVar[str] = "Contrastive loss"

    mask_same_video: bool = option(
        False, "captions of the same video are not negatives (original: they are)"
    )
    grad_cache_size: int = option(
        0,
        "clips, captions or pairs that go through the model at a time, each twice, while VTC"
        " compares the whole batch (0: all at once): less memory, more time",
        minimum=0,
        maximum=MAX_BATCH,
    )


@dataclass(kw_only=True)
class MatchingOptions:
    """Matching loss (VTM): its start, and its negatives."""

    TOPIC: ClassVar[str] = "Matching loss"

    itm_start_ratio: float = option(
        0.0, "share of the updates before the matching loss sets in", minimum=0, maximum=1
    )
    itm_negatives: str = option(
        LOCAL,
        "where the matching loss takes its negatives from: the local batch of a process, or the"
        " global batch of all",
        choices=(LOCAL, GLOBAL),
        former={"own_rank": LOCAL, "all_ranks": GLOBAL},
    )

    def start_notices(self, *, matching: bool) -> list[str]:
        """Return a sentence where the start of a matching loss that is off has no effect."""
        if self.itm_start_ratio > 0 and not matching:
            return ["itm_start_ratio has no effect: use_itm is 0"]
        return []


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _too_many(wanted: int) -> bool:
    return wanted > max(_ALWAYS_ALLOWED, _PROCESSES_PER_CORE * _num_cores())


def _why_too_many(wanted: int) -> str:
    return f"so many cannot work at once on {_num_cores()} cores, {wanted:,} would only wait"


RULES: tuple[Constraint, ...] = (
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


@dataclass(kw_only=True)
class ExperimentConfig(
    RunOptions, DataOptions, VideoOptions, ModelOptions, OptimizationOptions, ValidationOptions
):
    """Config of any experiment."""

    SCRIPT: ClassVar[str]
    """Entry script, for the usage line and stored configs."""
    TASK: ClassVar[str]
    """Key of the task in a family's `tasks`."""
    FAMILY: ClassVar[str]
    """Set by `alpro.configs.family.with_family`."""

    INERT: ClassVar[frozenset[str]] = frozenset(
        {  # accepted by the original, never read by it
            *("clip_init", "cnn_lr_decay", "dropout", "fps"),
            *("timesformer_model_cfg", "transformer_lr_mul"),
        }
    )
    DERIVED: ClassVar[frozenset[str]] = frozenset(
        {
            *("n_gpu", "num_train_steps", "save_steps", "valid_steps"),
            *("annotations_sha256", "num_left_out_questions", "script", "architecture"),
            "visual_model",  # stored by earlier versions
        }
    )
    """Stored by a run with its config; accepted in a file, never used."""
    ALIASES: ClassVar[dict[str, str]] = {
        **{"num_workers": "n_workers", "shuffle_block": "shuffle_block_size"}
    }
    CHECKS: ClassVar[tuple[Constraint, ...]] = RULES

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:  # noqa: ARG002
        """Return sentences about keys without effect; the values of `stored` are a former run's."""
        if self.random_init and self.e2e_weights_path is not None and not infers:
            return ["random_init has no effect: e2e_weights_path is given; null takes it away"]
        return []
