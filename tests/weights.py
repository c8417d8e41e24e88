"""ALPRO's models, filled as its experiments fill them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from torch import nn

from alpro.experiment import weights
from alpro.families.alpro.family import CHECKPOINT, FAMILY


def load_checkpoint(model: nn.Module, path: Path, **options: Any) -> None:
    """Fill a model from a checkpoint in ALPRO's format."""
    weights.load_checkpoint(model, path, layout=CHECKPOINT, **options)


def load_starting_weights(
    model: nn.Module,
    *,
    checkpoint: Path | None = None,
    vit: Path | None = None,
    bert: Path | None = None,
    random_init: bool = False,
    **options: Any,
) -> None:
    """Fill a model from the files that a config names."""
    config = SimpleNamespace(
        e2e_weights_path=checkpoint,
        visual_weights_path=None if vit is None else str(vit),
        bert_weights_path=None if bert is None else str(bert),
        random_init=random_init,
    )
    weights.load_starting_weights(model, cast(Any, config), family=FAMILY, **options)
