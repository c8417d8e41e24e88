"""Small models of the family, and transformers' CLIP of the same sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from alpro.families.clip_vip.config import ClipConfig, ClipVipOptions
from alpro.families.clip_vip.family import build_model
from alpro.families.clip_vip.model import ClipVip

IMAGE_SIZE, PATCH_SIZE, VOCAB_SIZE = 32, 16, 50
VISION = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
}
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SIZES: dict[str, Any] = {
    **{f"vision_{key}": size for key, size in VISION.items()},
    **{f"text_{key}": size for key, size in TEXT.items()},
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 12,
    "projection_dim": 20,
    "temporal_size": 4,
}


def clip_vip(**changes: Any) -> ClipVip:
    """A small model with reproducible random weights."""
    torch.manual_seed(0)
    return build_clip_vip(**SIZES | changes)


def build_clip_vip(*, plain: bool = False, **values: Any) -> ClipVip:
    """The model of some keys of a config and of its CLIP, others as by default."""
    sizes = {key: values.pop(key) for key in ClipConfig.__annotations__ if key in values}
    options = ClipVipOptions(
        clip_config="clip.json", vision_type="plain" if plain else "ViP", **values
    )
    return build_model(options, {"clip_config": ClipConfig(**sizes)})


def transformers_clip(*, seed: int = 1) -> CLIPModel:
    """CLIP of transformers with other random weights, biases and norms included."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        vision_config=VISION | {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
        text_config=TEXT
        | {
            "vocab_size": VOCAB_SIZE,
            "max_position_embeddings": 12,
            "bos_token_id": VOCAB_SIZE - 2,
            "eos_token_id": VOCAB_SIZE - 1,
        },
        projection_dim=20,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def frames(*, batch_size: int = 2, num_frames: int = 3) -> Tensor:
    """Reproducible normalised frames."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch_size, num_frames, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
