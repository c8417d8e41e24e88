"""Encoders and further parts of ALPRO's models, from a config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from alpro.configs.experiment import ExperimentConfig
from alpro.families.alpro.config import TextEncoderConfig, VideoEncoderConfig
from alpro.families.family import Architecture
from alpro.modeling.attention import Kernel
from alpro.modeling.bert import SplitBertBase
from alpro.modeling.timesformer import TimeSformer, TimeSformerEncoder

Flavour = TypeVar("Flavour", bound=SplitBertBase)


def build_video_encoder(
    encoder: VideoEncoderConfig, *, num_frames: int, image_size: int, attention: str
) -> TimeSformerEncoder:
    """The TimeSformer of a ``visual_model_cfg`` file, randomly initialised."""
    # The frame count and the image size come from the experiment.
    return TimeSformerEncoder(
        TimeSformer(
            image_size=image_size,
            patch_size=encoder.patch_size,
            num_frames=num_frames,
            embed_dim=encoder.embed_dim,
            depth=encoder.depth,
            num_heads=encoder.num_heads,
            mlp_ratio=encoder.mlp_ratio,
            drop_rate=encoder.drop_rate,
            attn_drop_rate=encoder.attn_drop_rate,
            drop_path_rate=encoder.drop_path_rate,
            gradient_checkpointing=encoder.gradient_checkpointing,
            initializer_range=encoder.initializer_range,
            pos_embed_std=encoder.pos_embed_std,
            time_embed_std=encoder.time_embed_std,
            temporal_init=cast(Any, encoder.temporal_init),
            attention=cast(Kernel, attention),
        )
    )


def build_text_encoder(
    encoder: TextEncoderConfig, *, attention: str, flavour: Callable[..., Flavour]
) -> Flavour:
    """The split BERT of a ``model_config`` file, randomly initialised."""
    # The flavour is one of the classes of modeling/bert.py.
    return flavour(
        vocab_size=encoder.vocab_size,
        hidden_size=encoder.hidden_size,
        num_hidden_layers=encoder.num_hidden_layers,
        num_attention_heads=encoder.num_attention_heads,
        intermediate_size=encoder.intermediate_size,
        fusion_layer=encoder.fusion_layer,
        hidden_act=encoder.hidden_act,
        hidden_dropout_prob=encoder.hidden_dropout_prob,
        attention_probs_dropout_prob=encoder.attention_probs_dropout_prob,
        max_position_embeddings=encoder.max_position_embeddings,
        type_vocab_size=encoder.type_vocab_size,
        pad_token_id=encoder.pad_token_id,
        initializer_range=encoder.initializer_range,
        layer_norm_eps=encoder.layer_norm_eps,
        attention=cast(Kernel, attention),
    )


def shared_parts(
    config: ExperimentConfig, architecture: Architecture, flavour: Callable[..., SplitBertBase]
) -> dict[str, Any]:
    """Arguments of every :class:`AlproModel`."""
    video: VideoEncoderConfig = architecture["visual_model_cfg"]
    text: TextEncoderConfig = architecture["model_config"]
    kernel, frames, size = config.attention, config.num_frm, config.crop_img_size
    return {
        "visual_encoder": build_video_encoder(
            video, num_frames=frames, image_size=size, attention=kernel
        ),
        "text_encoder": build_text_encoder(text, attention=kernel, flavour=flavour),
        "embed_dim": text.itc_embed_dim,
        "pooling": video.pooling,
    }
