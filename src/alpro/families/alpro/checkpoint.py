"""Parameter names of ALPRO's checkpoints and of its starting weights. Pure.

N: patches per frame, T: frames, D: width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from alpro.modeling.state_dict_adapter import (
    POSITION_IDS,
    StateDict,
    resize_pos_embed,
    resize_time_embed,
)

VIDEO_PREFIX = "visual_encoder.model."
TEXT_PREFIX = "text_encoder."

VIT_LEAVES_AT_INIT = (
    f"{VIDEO_PREFIX}time_embed",
    f"{VIDEO_PREFIX}blocks.*.temporal_fc.*",
    f"{VIDEO_PREFIX}head.*",
)
"""Parameters of the video encoder (fnmatch patterns) that an image transformer cannot provide."""

BERT_LEAVES_AT_INIT = (f"{TEXT_PREFIX}cls.*",)
"""Parameters of the text encoder that a BERT saved without its masked language head lacks."""

# Heads of other tasks, whatever their shape.
VIT_DROPPED = ("head.", "head_dist.", "pre_logits.", "fc_norm.", "pooler.", "classifier.")
BERT_DROPPED = ("bert.pooler.", "cls.seq_relationship.")

# Image weights that also start the attention over time: (image name, name over time).
TEMPORAL_COPIES = ((".attn.", ".temporal_attn."), (".norm1.", ".temporal_norm1."))

# Names in checkpoints converted from TensorFlow: (suffix there, suffix here).
TENSORFLOW_SUFFIXES = ((".gamma", ".weight"), (".beta", ".bias"))

# What the two flavours of the text encoder (modeling/bert.py) call the modules they share.
BERT_PREFIX = f"{TEXT_PREFIX}bert."
BERT_PARTS = ("embeddings.", "encoder.")

# First parts of the names in a state dict of each kind. What comes before them in a file is there
# because of how the model was wrapped and saved.
ROOTS = (
    *("visual_encoder", "text_encoder", "vision_proj", "text_proj", "temp", "itm_head"),
    *("classifier", "mpm_head", "prompter", "video_prompt_feat", "image_prompt_feat"),
)
VIT_ROOTS = ("cls_token", "pos_embed", "time_embed", "patch_embed", "blocks", "norm", "head")
TRANSFORMERS_VIT_ROOTS = ("embeddings", "encoder.layer", "layers", "layernorm")
BERT_ROOTS = ("bert", "cls", "embeddings", "encoder.layer")

# timm's names of the parts of a ViT or TimeSformer, by those in transformers before and since 5.
TRANSFORMERS_VIT = tuple(
    (re.compile(rf"{there}(?=\.|$)"), here)
    for there, here in (
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.time_embeddings", "time_embed"),
        (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"(?:encoder\.layer|layers)(\.\d+)\.layernorm_before", r"blocks\1.norm1"),
        (r"(?:encoder\.layer|layers)(\.\d+)\.layernorm_after", r"blocks\1.norm2"),
        (r"(?:encoder\.layer|layers)(\.\d+)\.temporal_layernorm", r"blocks\1.temporal_norm1"),
        (r"(?:encoder\.layer|layers)(\.\d+)\.temporal_dense", r"blocks\1.temporal_fc"),
        (r"encoder\.layer(\.\d+)\.intermediate\.dense", r"blocks\1.mlp.fc1"),
        (r"encoder\.layer(\.\d+)\.output\.dense", r"blocks\1.mlp.fc2"),
        (r"layers(\.\d+\.mlp\.fc[12])", r"blocks\1"),
        (
            r"(?:encoder\.layer|layers)(\.\d+\.)(temporal_)?attention\.(?:output\.dense|o_proj)",
            r"blocks\1\2attn.proj",
        ),
        (
            r"(?:encoder\.layer|layers)(\.\d+\.)(temporal_)?attention\.(?:attention\.)?"
            r"(qkv|query|key|value|q_proj|k_proj|v_proj)",
            r"blocks\1\2attn.\3",
        ),
        (r"layernorm", "norm"),
    )
)
TRANSFORMERS_MARK = "embeddings.patch_embeddings.projection.weight"
TRANSFORMERS_DROPPED = ("embeddings.mask_token",)
QKV = (("query", "key", "value"), ("q_proj", "k_proj", "v_proj"))


def from_vit(state: Mapping[str, Tensor]) -> StateDict:
    """An image transformer or a TimeSformer under ALPRO's names.

    Names can be timm's, those of TimeSformer's authors, or those of transformers. Attention and
    first norm of each block also start those over time, unless the file has them. Classification
    heads are dropped.
    """
    # Rename, drop the heads, then copy weights over space to those over time.
    if TRANSFORMERS_MARK in state:
        state = _from_transformers(state)
    kept = {key: value for key, value in state.items() if not key.startswith(VIT_DROPPED)}
    renamed = dict(kept)
    for key, value in kept.items():
        for over_space, over_time in TEMPORAL_COPIES:
            if key.startswith("blocks.") and over_space in key:
                renamed.setdefault(key.replace(over_space, over_time), value)
    return {VIDEO_PREFIX + key: value for key, value in renamed.items()}


def _from_transformers(state: Mapping[str, Tensor]) -> StateDict:
    """A ViT or TimeSformer of transformers under timm's names: queries, keys and values in one."""
    # Rename each tensor by the first pattern that matches.
    renamed: StateDict = {}
    for name, value in state.items():
        if name in TRANSFORMERS_DROPPED:
            continue
        matches = ((pattern.match(name), here) for pattern, here in TRANSFORMERS_VIT)
        match, here = next((pair for pair in matches if pair[0]), (None, ""))
        renamed[match.expand(here) + name[match.end() :] if match else name] = value
    # Concatenate queries, keys and values, weights and biases, as timm has them.
    for names in QKV:
        for first in [name for name in renamed if f".{names[0]}." in name]:
            parts = [first.replace(f".{names[0]}.", f".{name}.") for name in names]
            if all(part in renamed for part in parts):
                merged = torch.cat([renamed.pop(part) for part in parts])
                renamed[first.replace(f".{names[0]}.", ".qkv.")] = merged
    return renamed


def from_bert(state: Mapping[str, Tensor]) -> StateDict:
    """A Hugging Face BERT, with or without heads and ``bert.`` prefix, under ALPRO's names."""
    # Add the prefix, drop heads of other tasks, rename TensorFlow's suffixes.
    renamed: StateDict = {}
    for key, value in state.items():
        if not key.startswith(("bert.", "cls.")):
            key = "bert." + key
        if key.startswith(BERT_DROPPED):
            continue
        for there, here in TENSORFLOW_SUFFIXES:
            if key.endswith(there):
                key = key.removesuffix(there) + here
        renamed[TEXT_PREFIX + key] = value
    return renamed


def text_renames(state: Iterable[str], model_state: Iterable[str]) -> dict[str, str]:
    """Renames of a checkpoint that has the text encoder's other flavour, by its names.

    Question answering calls ``text_encoder.X`` what the other models call ``text_encoder.bert.X``.
    Empty where the flavours agree.
    """
    # The model's names decide which way to rename.
    plain = tuple(TEXT_PREFIX + part for part in BERT_PARTS)
    prefixed = tuple(BERT_PREFIX + part for part in BERT_PARTS)
    known = list(model_state)
    if any(name.startswith(plain) for name in known):
        there, old, new = prefixed, BERT_PREFIX, TEXT_PREFIX
    elif any(name.startswith(prefixed) for name in known):
        there, old, new = plain, TEXT_PREFIX, BERT_PREFIX
    else:
        return {}
    return {name: new + name.removeprefix(old) for name in state if name.startswith(there)}


TIME_EMBED = "time_embed"
POS_EMBED = "pos_embed"

DROPPABLE = (
    "prompter.",  # the teacher inside a pretraining checkpoint
    "video_prompt_feat",  # buffers of a teacher's own checkpoint
    "image_prompt_feat",
    "mpm_head.",  # heads of other tasks
    "classifier.",
    "itm_head.",
    "text_encoder.cls.",
)
"""Beginnings of names that a checkpoint of another stage may have and a model may lack."""


def adapt_state_dict(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> StateDict:
    """Fit a checkpoint to a model of other frames, image size, heads or text encoder.

    The text encoder's tensors are renamed to the model's flavour, see `text_renames`. Time
    embeddings of another length are resized by nearest neighbour (as the original, 4 to 8 frames
    gives 0,0,1,1,2,2,3,3), position embeddings by bicubic interpolation of the patch grid.
    `DROPPABLE` tensors that the model lacks are left out. Position ids are the model's own, as they
    count from zero everywhere. Everything else is passed on for `compare` to judge.
    """
    # Rename, resize or drop each tensor.
    adapted: StateDict = {}
    renames = text_renames(state, model_state)
    for there, value in state.items():
        key = renames.get(there, there)
        if key.endswith(POSITION_IDS):
            continue
        if (target := model_state.get(key)) is not None:
            adapted[key] = _resized(key, value, target)
        elif not key.startswith(DROPPABLE):
            adapted[key] = value
    ids = {key: value for key, value in model_state.items() if key.endswith(POSITION_IDS)}
    return adapted | ids


def describe_adaptation(
    state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> list[str]:
    """Describe the changes of `adapt_state_dict`, one sentence per kind, for the log."""
    # Renamed and resized tensors, then a count per dropped prefix.
    dropped: dict[str, int] = {}
    renames = text_renames(state, model_state)
    notes = []
    if renames:
        there, here = next(iter(renames.items()))
        notes.append(f"{len(renames)} tensors renamed to the model's names, as {there} to {here}")
    for there, value in state.items():
        key = renames.get(there, there)
        target = model_state.get(key)
        if target is None:
            prefix = next((p for p in DROPPABLE if key.startswith(p)), None)
            if prefix is not None:
                dropped[prefix] = dropped.get(prefix, 0) + 1
        elif _is_resizable(key, value, target):
            notes.append(f"{key} resized from {tuple(value.shape)} to {tuple(target.shape)}")
    return notes + [f"{count} tensors {prefix}* not used" for prefix, count in dropped.items()]


def _resized(key: str, value: Tensor, target: Tensor) -> Tensor:
    if not _is_resizable(key, value, target):
        return value
    resize = resize_time_embed if key.endswith(TIME_EMBED) else resize_pos_embed
    return resize(value.to(target.dtype), target.size(1))


def _is_resizable(key: str, value: Tensor, target: Tensor) -> bool:
    """Whether an embedding differs from the model's in length only."""
    # Embeddings are (1, length, D).
    if value.dim() != 3 or value.shape == target.shape or value.size(2) != target.size(2):
        return False
    if key.endswith(TIME_EMBED):
        return True
    return key.endswith(POS_EMBED) and _is_grid(value.size(1) - 1) and _is_grid(target.size(1) - 1)


def _is_grid(num_patches: int) -> bool:
    return num_patches > 0 and math.isqrt(num_patches) ** 2 == num_patches
