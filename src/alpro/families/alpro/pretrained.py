"""Starting weights of ALPRO's models: an image transformer, a BERT, a teacher."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from alpro.configs.schema import ExperimentConfig
from alpro.errors import InputError
from alpro.experiment.preflight import missing_file
from alpro.experiment.weights import fill, load_checkpoint
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
from alpro.families.alpro.config import CONFIG, AlproOptions
from alpro.families.alpro.pretraining_model import ENTITY_HEAD_OUTPUT, PROMPTER_PREFIX
from alpro.families.alpro.prompter import PROMPT_NAMES, UNUSED_BY_PROMPTER, Prompter
from alpro.families.family import CheckpointFormat, StartingWeights
from alpro.modeling.state_dict_adapter import StateDict
from alpro.training.state_dicts import read_state
from alpro.training.weight_files import find_weights

logger = logging.getLogger(__name__)

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


def load_teacher(prompter: Prompter, path: Path) -> None:
    """Fill the prompter of pretraining from a checkpoint, all but its prompts.

    Any checkpoint with both encoders will do. Of a pretraining checkpoint the model itself becomes
    the teacher, not the prompter that taught it.

    Raises:
        InputError: if the file is no checkpoint or of another architecture.
    """
    # Errors name the config key of the teacher.
    try:
        load_checkpoint(
            prompter,
            path,
            layout=CHECKPOINT,
            allowed_missing=UNUSED_BY_PROMPTER,
            silently_missing=PROMPT_NAMES,
            prepare=without_prompts,
        )
    except InputError as error:
        raise InputError(f"teacher_weights_path: {error}") from error
    logger.info("%s: its prompts are built from the list of entities", path)


def without_prompts(state: StateDict) -> StateDict:
    """A checkpoint's tensors without those made of a list of entities."""
    return {name: value for name, value in state.items() if name not in PROMPT_NAMES}


def check_num_entities(
    shapes: Mapping[str, Sequence[int]], *, num_entities: int, path: Path
) -> None:
    """Check that a pretraining checkpoint, of these shapes, has as many entities as the model.

    Raises:
        InputError: if it has another number.
    """
    # The entity head and both prompt buffers have a row for each entity.
    for name in (ENTITY_HEAD_OUTPUT, *(PROMPTER_PREFIX + name for name in PROMPT_NAMES)):
        if name in shapes and shapes[name][0] != num_entities:
            there = shapes[name][0]
            raise InputError(
                f"e2e_weights_path: {path} was pretrained with {there} entities, num_entities is "
                f"{num_entities}. Set num_entities to {there}, with the list of entities that it "
                "was trained with as entity_file_path."
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


STARTING_WEIGHTS = StartingWeights(
    load=load_encoders,
    missing=missing_weights,
    remedy=f"an image transformer as visual_weights_path ({VIT_SOURCE})",
)


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
