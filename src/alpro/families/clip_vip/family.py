"""CLIP-ViP (Xue et al., ICLR 2023) as a family: its models, weights and tasks."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from alpro.configs.experiment import ExperimentConfig
from alpro.datasets.tokenization import CLIP_BPE
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.families.clip_vip.checkpoint import CHECKPOINT, STARTING_WEIGHTS
from alpro.families.clip_vip.config import PLAIN, ClipConfig
from alpro.families.clip_vip.model import ClipVip, Tower, build_clip_vip
from alpro.families.clip_vip.parameter_groups import scaled_groups
from alpro.families.family import Architecture, ModelFamily
from alpro.optimization.optimizer import ParameterGroup

KEPT_PER_LAYER = 8  # inputs of its norms and linear layers, at least, for the backward pass
BYTES_OF_HALF = 2  # per kept number, at least: bf16 and fp16


def preprocessing(config: ExperimentConfig) -> PixelPreprocessing:
    """Frames squashed to a square, without anti-aliasing as the released weights were trained."""
    return PixelPreprocessing(
        size=config.crop_img_size,
        interpolation="bicubic",
        antialias=False,
        mean=config.img_pixel_mean,
        std=config.img_pixel_std,
    )


def parameter_groups(model: nn.Module, config: Any) -> list[ParameterGroup]:
    """The original's four groups, by ``lr_mul_prefix`` and decay."""
    return scaled_groups(
        model,
        weight_decay=config.weight_decay,
        scaled=config.lr_mul_prefix or "",
        scale=config.lr_mul,
    )


def kept_bytes(config: Any, architecture: Architecture) -> int:
    """Bytes that the vision tower keeps of a clip until the backward pass, at least."""
    clip = cast(ClipConfig, architecture["clip_config"])
    # Checkpointing keeps a layer's input alone.
    num_tokens = config.num_frm * (clip.image_size // clip.patch_size) ** 2
    per_layer = 1 if config.gradient_checkpointing else KEPT_PER_LAYER
    width, num_layers = clip.vision_hidden_size, clip.vision_num_hidden_layers
    return num_layers * per_layer * num_tokens * width * BYTES_OF_HALF


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


FAMILY = ModelFamily(
    tasks={
        "retrieval": "alpro.families.clip_vip.retrieval",
        "post_pretraining": "alpro.families.clip_vip.pretraining",
    },
    tokenizer=CLIP_BPE,
    vocab_size=lambda architecture: architecture["clip_config"].vocab_size,
    preprocessing=preprocessing,
    checkpoint=CHECKPOINT,
    starting_weights=STARTING_WEIGHTS,
    parameter_groups=parameter_groups,
    kept_bytes=kept_bytes,
)
