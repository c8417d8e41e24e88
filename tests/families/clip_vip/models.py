"""Small models of the family, and transformers' CLIP of the same sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from alpro.families.clip_vip.model import ClipVip, Tower, build_clip_vip

IMAGE_SIZE, PATCH_SIZE, VOCAB_SIZE = 32, 16, 50
VISION = Tower(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40)
TEXT = Tower(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SIZES: dict[str, Any] = {
    "vision": VISION,
    "text": TEXT,
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


def transformers_clip(*, seed: int = 1) -> CLIPModel:
    """CLIP of transformers with other random weights, biases and norms included."""
    torch.manual_seed(seed)
    config = CLIPConfig(
        vision_config=vars(VISION) | {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
        text_config=vars(TEXT)
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
