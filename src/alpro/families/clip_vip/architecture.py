"""CLIP-ViP of a config, for all of its tasks."""

from __future__ import annotations

from typing import Any

from alpro.families.clip_vip.config import PLAIN, ClipConfig
from alpro.families.clip_vip.model import ClipVip, Tower, build_clip_vip
from alpro.families.family import Architecture


def build_model(config: Any, architecture: Architecture) -> ClipVip:
    """The model of a config, randomly initialised."""
    clip: ClipConfig = architecture["clip_config"]
    return build_clip_vip(
        vision=_tower(clip, "vision"),
        text=_tower(clip, "text"),
        image_size=clip.image_size,
        patch_size=clip.patch_size,
        vocab_size=clip.vocab_size,
        max_position_embeddings=clip.max_position_embeddings,
        projection_dim=clip.projection_dim,
        hidden_act=clip.vision_hidden_act,
        plain=config.vision_type == PLAIN,
        num_proxies=config.add_cls_num,
        temporal_size=config.temporal_size,
        use_temporal_embed=config.if_use_temporal_embed,
        logit_scale_init=config.logit_scale_init_value,
        gradient_checkpointing=config.gradient_checkpointing,
        attention=config.attention,
    )


def _tower(clip: ClipConfig, tower: str) -> Tower:
    return Tower(
        hidden_size=getattr(clip, f"{tower}_hidden_size"),
        num_hidden_layers=getattr(clip, f"{tower}_num_hidden_layers"),
        num_attention_heads=getattr(clip, f"{tower}_num_attention_heads"),
        intermediate_size=getattr(clip, f"{tower}_intermediate_size"),
    )
