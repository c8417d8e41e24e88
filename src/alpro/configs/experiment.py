"""Config of any experiment, and options that several tasks share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from alpro.configs import constraints as checks
from alpro.configs.fields import option
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
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = checks.SHARED

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:  # noqa: ARG002
        """Return sentences about keys without effect; the values of `stored` are a former run's."""
        if self.random_init and self.e2e_weights_path is not None and not infers:
            return ["random_init has no effect: e2e_weights_path is given; null takes it away"]
        return []
