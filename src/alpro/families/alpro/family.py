"""ALPRO (Li et al., CVPR 2022) as a family: its models, weights and tasks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from alpro.configs.schema import ExperimentConfig, PretrainConfig, PretrainingConfig
from alpro.datasets.tokenization import WORDPIECE
from alpro.experiment.question_answering import QuestionAnswering
from alpro.experiment.retrieval import Retrieval
from alpro.families.alpro.checkpoint import TEXT_PREFIX
from alpro.families.alpro.config import TextEncoderConfig, VideoEncoderConfig
from alpro.families.alpro.model import (
    UNUSED_FOR_ANSWERS,
    AlproForQuestionAnswering,
    AlproForRetrieval,
)
from alpro.families.alpro.pretrained import CHECKPOINT, STARTING_WEIGHTS
from alpro.families.alpro.pretraining import PrompterPretraining, VideoLanguagePretraining
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.families.alpro.prompter import Prompter
from alpro.families.family import Architecture, ModelFamily, TaskSpec
from alpro.modeling.attention import Kernel
from alpro.modeling.bert import SplitBert, SplitBertBase, SplitBertEncoder
from alpro.modeling.timesformer import TimeSformer, TimeSformerEncoder

Flavour = TypeVar("Flavour", bound=SplitBertBase)

KEPT_PER_BLOCK = 8  # inputs of its norms and linear layers, at least, for the backward pass
BYTES_OF_HALF = 2  # per kept number, at least: bf16 and fp16


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


def build_retrieval_model(
    config: ExperimentConfig, architecture: Architecture
) -> AlproForRetrieval:
    """The retrieval model of a config, randomly initialised."""
    return AlproForRetrieval(**_shared_parts(config, architecture, SplitBert))


def build_question_answering_model(
    config: ExperimentConfig, architecture: Architecture, *, num_labels: int
) -> AlproForQuestionAnswering:
    """The question answering model of a config, randomly initialised."""
    parts = _shared_parts(config, architecture, SplitBertEncoder)
    return AlproForQuestionAnswering(**parts, num_labels=num_labels)


def build_prompter(config: PretrainingConfig, architecture: Architecture) -> Prompter:
    """The prompter of a config, randomly initialised."""
    parts = _shared_parts(config, architecture, SplitBert)
    return Prompter(**parts, num_entities=config.num_entities)


def build_pretraining_model(
    config: PretrainConfig, architecture: Architecture
) -> AlproForPretraining:
    """The pretraining model, randomly initialised; PEM needs a prompter."""
    text = partial(SplitBert, train_mlm_head=config.use_mlm)
    return AlproForPretraining(
        **_shared_parts(config, architecture, text),
        prompter=build_prompter(config, architecture) if config.use_mpm else None,
    )


def _shared_parts(
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


def kept_bytes(config: ExperimentConfig, architecture: Architecture) -> int:
    """Bytes that the video encoder keeps of a clip until the backward pass, at least."""
    encoder: VideoEncoderConfig = architecture["visual_model_cfg"]
    # Checkpointing keeps a block's input alone.
    num_tokens = config.num_frm * (config.crop_img_size // encoder.patch_size) ** 2
    per_block = 1 if encoder.gradient_checkpointing else KEPT_PER_BLOCK
    return encoder.depth * per_block * num_tokens * encoder.embed_dim * BYTES_OF_HALF


FAMILY = ModelFamily(
    tasks={
        # Finetuned on annotated sets.
        "retrieval": TaskSpec(
            definition=Retrieval,
            build_model=build_retrieval_model,
            # Released checkpoints have it, question answering does not; nothing reads it.
            allowed_missing=(f"{TEXT_PREFIX}cls.*",),
        ),
        "question_answering": TaskSpec(
            definition=QuestionAnswering,
            build_model=build_question_answering_model,
            allowed_missing=(AlproForQuestionAnswering.CLASSIFIER, *UNUSED_FOR_ANSWERS),
        ),
        # The two stages of pretraining.
        "prompter": TaskSpec(definition=PrompterPretraining, build_model=build_prompter),
        "pretraining": TaskSpec(
            definition=VideoLanguagePretraining, build_model=build_pretraining_model
        ),
    },
    # Shared by all tasks.
    tokenizer=WORDPIECE,
    vocab_size=lambda architecture: architecture["model_config"].vocab_size,
    checkpoint=CHECKPOINT,
    starting_weights=STARTING_WEIGHTS,
    kept_bytes=kept_bytes,
)
