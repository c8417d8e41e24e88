"""Models, tokenizer and starting weights from a config."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from alpro.configs.loading import ResolvedConfig
from alpro.configs.models import TextEncoderConfig, VideoEncoderConfig
from alpro.configs.schema import ExperimentConfig, PretrainingConfig
from alpro.datasets.tokenization import Tokenizer, load_tokenizer
from alpro.families.alpro.model import AlproForRetrieval
from alpro.families.alpro.pretrained import Prepare, load_starting_weights, resolve_vit
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.families.alpro.prompter import Prompter
from alpro.families.alpro.question_answering_model import AlproForQuestionAnswering
from alpro.modeling.attention import Kernel
from alpro.modeling.bert import SplitBert, SplitBertBase, SplitBertEncoder
from alpro.modeling.timesformer import TimeSformer, TimeSformerEncoder

Flavour = TypeVar("Flavour", bound=SplitBertBase)


def build_video_encoder(
    encoder: VideoEncoderConfig, *, num_frames: int, image_size: int, attention: str
) -> TimeSformerEncoder:
    """The TimeSformer of a ``visual_model_cfg`` file, with random weights."""
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
    encoder: TextEncoderConfig,
    *,
    attention: str,
    flavour: Callable[..., Flavour],
) -> Flavour:
    """The BERT of a ``model_config`` file, split into two encoders, with random weights."""
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


def build_retrieval_model(resolved: ResolvedConfig[Any]) -> AlproForRetrieval:
    """The retrieval model of a config, with random weights."""
    return AlproForRetrieval(**_shared_parts(resolved, SplitBert))


def build_question_answering_model(
    resolved: ResolvedConfig[Any], *, num_labels: int
) -> AlproForQuestionAnswering:
    """The question answering model of a config, with random weights."""
    return AlproForQuestionAnswering(
        **_shared_parts(resolved, SplitBertEncoder), num_labels=num_labels
    )


def build_prompter(resolved: ResolvedConfig[Any]) -> Prompter:
    """The prompter of a config, with random weights."""
    config: PretrainingConfig = resolved.config
    return Prompter(**_shared_parts(resolved, SplitBert), num_entities=config.num_entities)


def build_pretraining_model(
    resolved: ResolvedConfig[Any], *, use_mlm: bool, use_mpm: bool
) -> AlproForPretraining:
    """The model that is pretrained, with random weights.

    Args:
        resolved: the config.
        use_mlm: its language head is trained.
        use_mpm: it has a prompter, and a head for entities.
    """
    return AlproForPretraining(
        **_shared_parts(resolved, partial(SplitBert, train_mlm_head=use_mlm)),
        prompter=build_prompter(resolved) if use_mpm else None,
    )


def _shared_parts(
    resolved: ResolvedConfig[Any], flavour: Callable[..., SplitBertBase]
) -> dict[str, Any]:
    """Arguments of every :class:`AlproModel`."""
    config: ExperimentConfig = resolved.config
    return {
        "visual_encoder": build_video_encoder(
            resolved.video_encoder,
            num_frames=config.num_frm,
            image_size=config.crop_img_size,
            attention=config.attention,
        ),
        "text_encoder": build_text_encoder(
            resolved.text_encoder, attention=config.attention, flavour=flavour
        ),
        "embed_dim": resolved.text_encoder.itc_embed_dim,
        "pooling": resolved.video_encoder.pooling,
    }


def load_weights(
    model: nn.Module,
    config: ExperimentConfig,
    *,
    allowed_missing: Sequence[str] = (),
    prepare: Prepare | None = None,
) -> None:
    """Fill a new model from the files that a config names.

    Args:
        model: with random weights.
        config: of the experiment.
        allowed_missing: patterns of tensors that a checkpoint may lack.
        prepare: applied to a checkpoint's tensors; None takes them as they are.
    """
    load_starting_weights(
        model,
        checkpoint=_path(config.e2e_weights_path),
        vit=resolve_vit(config.visual_weights_path),
        bert=Path(config.bert_weights_path or config.tokenizer_dir),
        random_init=config.random_init,
        allowed_missing=allowed_missing,
        prepare=prepare,
    )


def build_tokenizer(resolved: ResolvedConfig[Any]) -> Tokenizer:
    """The tokenizer of a config; it must know as many tokens as the model."""
    config: ExperimentConfig = resolved.config
    return load_tokenizer(Path(config.tokenizer_dir), vocab_size=resolved.text_encoder.vocab_size)


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)
