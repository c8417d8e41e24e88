"""Configuration fields of the losses, one class per topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.fields import option
from alpro.configs.options import MAX_BATCH

OWN_RANK, ALL_RANKS = "own_rank", "all_ranks"


@dataclass(kw_only=True)
class ContrastOptions:
    """Pairs that are compared with each other."""

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
    """Matching of pairs: its start, and its negatives."""

    TOPIC: ClassVar[str] = "Matching loss"

    itm_start_ratio: float = option(
        0.0, "share of the updates before the matching loss sets in", minimum=0, maximum=1
    )
    itm_negatives: str = option(
        OWN_RANK,
        "where the matching loss takes its negatives from: the process's own pairs of a batch, or"
        " those of all processes",
        choices=(OWN_RANK, ALL_RANKS),
    )
