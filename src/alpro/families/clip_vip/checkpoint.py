"""Checkpoints of CLIP-ViP, and CLIP's weights in the three layouts that are in use.

D: width, T: frames, P: patch side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alpro.families.clip_vip.model import ClipVip
from alpro.families.family import CheckpointFormat, StartingWeights


def load_clip(model: ClipVip, path: Path) -> None:
    """Start from CLIP, or from a checkpoint of CLIP-ViP; ``logit_scale`` stays as initialised.

    Names can be Hugging Face's, OpenAI's or open_clip's.

    Args:
        model: takes the tensors.
        path: file, or folder that holds one.

    Raises:
        InputError: tensors are missing, unknown, or of other sizes than the model's.
    """
    raise NotImplementedError


def load_starting_weights(model: Any, config: Any) -> bool:
    """Start from the ``clip_weights`` of a config; False if it names none."""
    raise NotImplementedError


def missing_weights(config: Any) -> list[str]:
    """Describe the missing or unreadable files of ``clip_weights``."""
    raise NotImplementedError


CHECKPOINT = CheckpointFormat(
    roots=("clipmodel",),
    files=("clip_config", "clip_vision_additional_config"),
    adapt=lambda state, _model: dict(state),
)
STARTING_WEIGHTS = StartingWeights(
    load=load_starting_weights,
    missing=missing_weights,
    remedy="CLIP's weights as clip_weights (openai/clip-vit-base-patch32)",
)
