"""CLIP-ViP (Xue et al., ICLR 2023) as a family: its models, weights and tasks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModel, CLIPConfig

from alpro.configs.experiment import ExperimentConfig
from alpro.datasets.tokenization import CLIP_BPE
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.families.clip_vip.checkpoint import CHECKPOINT, STARTING_WEIGHTS
from alpro.families.clip_vip.config import EMBED_STD, PLAIN, ClipConfig
from alpro.families.clip_vip.model import ClipVip, VipVisionModel
from alpro.families.family import Architecture, ModelFamily
from alpro.optimization.optimizer import ParameterGroup, group_parameters

LAYER_NORM_EPS = 1e-5
# Parts of names; the original means to spare norms as well, by names that CLIP's do not have.
_NO_DECAY = ("bias", "logit_scale")
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
    """Trainable parameters by ``lr_mul_prefix``, a part of names, and by weight decay.

    Raises:
        InputError: ``lr_mul_prefix`` is in no name.
    """
    scaled = config.lr_mul_prefix
    if scaled and not any(scaled in name for name, _ in model.named_parameters()):
        raise InputError(f"lr_mul_prefix: no parameter has {scaled} in its name.")

    def settings(name: str, *_: nn.Module | nn.Parameter) -> tuple[float, float]:
        factor = config.lr_mul if scaled and scaled in name else 1.0
        return factor, 0.0 if any(part in name for part in _NO_DECAY) else config.weight_decay

    return group_parameters(model, settings)


def kept_bytes(config: Any, architecture: Architecture) -> int:
    """Bytes that the vision tower keeps of a clip until the backward pass, at least."""
    clip = cast(ClipConfig, architecture["clip_config"])
    # Checkpointing keeps a layer's input alone.
    num_tokens = config.num_frm * (clip.image_size // clip.patch_size) ** 2
    per_layer = 1 if config.gradient_checkpointing else KEPT_PER_LAYER
    num_kept = clip.vision_num_hidden_layers * per_layer * num_tokens * clip.vision_hidden_size
    return num_kept * BYTES_OF_HALF


def build_model(config: Any, architecture: Architecture) -> ClipVip:
    """The model of a config with random weights, by CLIP's rule."""
    # CLIP without weights of its own: transformers initialises as OpenAI does.
    sizes: ClipConfig = architecture["clip_config"]
    pixels = {"image_size": sizes.image_size, "patch_size": sizes.patch_size}
    words = {
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.max_position_embeddings,
        "bos_token_id": sizes.vocab_size - 2,
        "eos_token_id": sizes.vocab_size - 1,
    }
    clip_config = CLIPConfig(
        vision_config=_tower(sizes, "vision_") | pixels,
        text_config=_tower(sizes, "text_") | words,
        projection_dim=sizes.projection_dim,
        logit_scale_init_value=config.logit_scale_init_value,
    )
    kernel = "eager" if config.attention == "plain" else "sdpa"
    clip = AutoModel.from_config(clip_config, attn_implementation=kernel)
    # CLIP of each frame has neither proxies nor time (CLIP4Clip's meanP).
    plain = config.vision_type == PLAIN
    clip.vision_model = VipVisionModel(
        clip.vision_model,
        num_proxies=0 if plain else config.add_cls_num,
        temporal_size=None if plain or not config.if_use_temporal_embed else config.temporal_size,
        gradient_checkpointing=config.gradient_checkpointing,
        attention=config.attention,
    )
    if config.random_embed_std != EMBED_STD:
        patch, position, time = config.random_embed_std
        parts = dict(clip.vision_model.embeddings.named_parameters())
        nn.init.normal_(parts["patch_embedding.weight"], std=patch)
        nn.init.normal_(parts["position_embedding.weight"], std=position)
        nn.init.normal_(parts.get("temporal_embedding", torch.empty(0)), std=time)
    return ClipVip(clip, plain=plain)


def _tower(sizes: ClipConfig, prefix: str) -> dict[str, Any]:
    """Sizes of a tower, under the names of transformers."""
    own = {key: value for key, value in asdict(sizes).items() if key.startswith(prefix)}
    return {"layer_norm_eps": LAYER_NORM_EPS, **{k.removeprefix(prefix): own[k] for k in own}}


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
