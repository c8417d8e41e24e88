"""ALPRO (Li et al., CVPR 2022) as a family: its checkpoints, starting weights and tasks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from alpro.configs.experiment import ExperimentConfig
from alpro.datasets.tokenization import WORDPIECE
from alpro.errors import InputError
from alpro.experiment.weights import fill
from alpro.families.alpro.checkpoint import (
    BERT_LEAVES_AT_INIT,
    BERT_ROOTS,
    ROOTS,
    TEXT_PREFIX,
    TRANSFORMERS_VIT_ROOTS,
    VIDEO_PREFIX,
    VIT_LEAVES_AT_INIT,
    VIT_ROOTS,
    adapt_state_dict,
    describe_adaptation,
    from_bert,
    from_vit,
)
from alpro.families.alpro.config import CONFIG, AlproOptions, VideoEncoderConfig
from alpro.families.family import Architecture, CheckpointFormat, ModelFamily, StartingWeights
from alpro.training.state_dicts import read_state
from alpro.training.weight_files import find_weights
from alpro.user_files import missing_file

logger = logging.getLogger(__name__)

KEPT_PER_BLOCK = 8  # inputs of its norms and linear layers, at least, for the backward pass
BYTES_OF_HALF = 2  # per kept number, at least: bf16 and fp16
VIT_NAME = "vit_base_patch16_224"
VIT_SOURCE = (
    "timm's vit_base_patch16_224 (AugReg, ImageNet-21k then 1k), model.safetensors or a .pth file"
)
BERT_SOURCE = "bert-base-uncased's model.safetensors or pytorch_model.bin from the Hugging Face hub"
CHECKPOINT = CheckpointFormat(
    roots=ROOTS,
    files=tuple(CONFIG.architecture),
    adapt=adapt_state_dict,
    describe=describe_adaptation,
    never_used=("*visual_encoder.model.head.*",),
)


def load_vit(model: nn.Module, path: Path) -> None:
    """Start the video encoder from an image transformer; the rest stays as initialised."""
    _load_part(
        model,
        find_weights(path, key="visual_weights_path", source=VIT_SOURCE),
        roots=(VIT_ROOTS, TRANSFORMERS_VIT_ROOTS),
        rename=from_vit,
        prefix=VIDEO_PREFIX,
        source=VIT_SOURCE,
        allowed_missing=VIT_LEAVES_AT_INIT,
    )


def load_bert(model: nn.Module, path: Path) -> None:
    """Start the text and fusion encoder from a BERT."""
    _load_part(
        model,
        find_weights(path, key="bert_weights_path", source=BERT_SOURCE),
        roots=(BERT_ROOTS,),
        rename=from_bert,
        prefix=TEXT_PREFIX,
        source=BERT_SOURCE,
        allowed_missing=BERT_LEAVES_AT_INIT,
    )


def load_encoders(model: nn.Module, config: ExperimentConfig) -> bool:
    """Start both encoders from the files of a config; False if it names no ViT."""
    if (vit := resolve_vit(cast(AlproOptions, config).visual_weights_path)) is None:
        return False
    load_vit(model, vit)
    load_bert(model, _bert_of(config))
    return True


def missing_weights(config: ExperimentConfig) -> list[str]:
    """Describe the missing files that `load_encoders` needs."""
    if (vit := resolve_vit(cast(AlproOptions, config).visual_weights_path)) is None:
        return []
    return [
        *_missing_part("visual_weights_path", vit, source=VIT_SOURCE),
        *_missing_part("bert_weights_path", _bert_of(config), source=BERT_SOURCE),
    ]


def resolve_vit(name: str | None) -> Path | None:
    """Path of the image transformer: the known name means its folder under ``ext/``."""
    if name is None:
        return None
    return Path("ext") / VIT_NAME if name == VIT_NAME else Path(name)


def _bert_of(config: ExperimentConfig) -> Path:
    return Path(cast(AlproOptions, config).bert_weights_path or config.tokenizer_dir)


def _missing_part(key: str, path: Path, *, source: str) -> list[str]:
    try:
        return missing_file(key, find_weights(path, key=key, source=source))
    except InputError as error:
        return [str(error)]


def _load_part(
    model: nn.Module,
    file: Path,
    *,
    roots: Sequence[Sequence[str]],
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    prefix: str,
    source: str,
    allowed_missing: Sequence[str],
) -> None:
    # Adapt names and shapes, then fill the encoder below its prefix.
    expected = {k: v for k, v in model.state_dict().items() if k.startswith(prefix)}
    state = adapt_state_dict(rename(read_state(file, *roots)), expected)
    fill(
        model, state, path=file, layout=CHECKPOINT, prefix=prefix, allowed_missing=allowed_missing,
        wanted=f"Wanted is {source}.",
    )  # fmt: skip
    logger.info("%s: %d of the %d tensors of %s* loaded", file, len(state), len(expected), prefix)


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
        "retrieval": "alpro.families.alpro.retrieval",
        "question_answering": "alpro.families.alpro.question_answering",
        # The two stages of pretraining.
        "prompter": "alpro.families.alpro.prompter_pretraining",
        "pretraining": "alpro.families.alpro.pretraining",
    },
    # Shared by all tasks.
    tokenizer=WORDPIECE,
    vocab_size=lambda architecture: architecture["model_config"].vocab_size,
    checkpoint=CHECKPOINT,
    starting_weights=StartingWeights(
        load=load_encoders,
        missing=missing_weights,
        remedy=f"an image transformer as visual_weights_path ({VIT_SOURCE})",
    ),
    kept_bytes=kept_bytes,
)
