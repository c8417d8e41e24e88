"""Tables that bring the weights of other projects under ALPRO's parameter names. Pure.

The functions take and return plain state dicts (name -> tensor); reading files is not their task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

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
ALPRO_ROOTS = (
    *("visual_encoder", "text_encoder", "vision_proj", "text_proj", "temp", "itm_head"),
    *("classifier", "mpm_head", "prompter", "video_prompt_feat", "image_prompt_feat"),
)
VIT_ROOTS = ("cls_token", "pos_embed", "time_embed", "patch_embed", "blocks", "norm", "head")
TRANSFORMERS_VIT_ROOTS = ("embeddings", "encoder.layer", "layers", "layernorm")
BERT_ROOTS = ("bert", "cls", "embeddings", "encoder.layer")

# Parts that wrappers put anywhere into names: torch.compile, data parallelism, FSDP, DeepSpeed and
# activation checkpointing. No module of ours is called so.
WRAPPER_PARTS = frozenset(
    {
        *("_orig_mod", "module", "_fsdp_wrapped_module", "_forward_module", "_fpw_module"),
        "_checkpoint_wrapped_module",
    }
)
UNUSED_PARTS = frozenset({"n_averaged"})  # a counter of torch.optim.swa_utils.AveragedModel
_OPTIMIZER = re.compile(r"(?<![a-z])optim(izers?)?(?![a-z])", re.IGNORECASE)
_AVERAGE = re.compile(r"(?<![a-z])(ema|swa|averaged?|shadow|momentum)(?![a-z])", re.IGNORECASE)

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

# Names in models that are no use as weights: (part of a name, description).
OTHER_MODELS = (
    ("resblocks.", "CLIP, in OpenAI's names"),
    ("vision_model.", "CLIP or a relative of it, in transformers' names"),
    ("lora_A", "a LoRA adapter, which holds changes of weights and no weights"),
    ("dist_token", "a distilled DeiT"),
    ("distillation_token", "a distilled DeiT"),
    ("relative_position_bias_table", "a Swin Transformer or BEiT"),
    ("decoder_blocks.", "a masked autoencoder (MAE), with its decoder"),
    ("q_bias", "VideoMAE or BEiT"),
    ("layer1.0.conv1", "a ResNet"),
    ("roberta.", "RoBERTa"),
    ("distilbert.", "DistilBERT"),
    ("visual_encoder.blocks.", "ALBEF or BLIP"),
    ("exp_avg", "the state of an optimizer; the weights are in a file beside it"),
)


class Chosen(NamedTuple):
    """One state dict of those that a file holds."""

    names: dict[str, str]
    """Name without wrappers -> name in the file."""
    wrapper: str
    """Prefix of its names in the file."""
    others: list[str]
    """The same of the state dicts that were not chosen."""


def choose_state_dict(names: Iterable[str], *, roots: Sequence[str]) -> Chosen:
    """Find a state dict of known names in whatever it is wrapped and nested in.

    Parts of a name are set apart by "." and, where a mapping is in another, by "/". A name begins
    at its first part in `roots`; all before it is wrapper, and so is each of `WRAPPER_PARTS`
    wherever it stands. Names with the same wrapper are one state dict. Of several the plain model
    comes before a teacher, that before its student, that before averages (EMA); then the one with
    most tensors, the shorter wrapper, the first. States of optimizers do not count.

    Args:
        names: of the tensors in a file.
        roots: first parts of the names that are looked for, such as `ALPRO_ROOTS`.

    Returns:
        The state dict, empty if there is none. Unknown names in the same place belong to it.

    Raises:
        ValueError: two of its names are one without their wrappers.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    rest: list[str] = []
    for name in names:
        wrapper, plain = unwrapped(name, roots=roots)
        if not plain:
            rest.append(name)
        elif not _OPTIMIZER.search(wrapper):
            found.setdefault(wrapper, []).append((plain, name))
    if not found:
        return Chosen({}, "", [])
    wrapper = min(found, key=lambda key: (_rank(key), -len(found[key]), len(key)))
    for name in rest:
        plain = _without_wrapper_parts(name)
        unknown = plain.removeprefix(wrapper)
        if plain.startswith(wrapper) and "/" not in unknown and unknown not in UNUSED_PARTS:
            found[wrapper].append((unknown, name))
    chosen: dict[str, str] = {}
    for plain, name in found[wrapper]:
        if plain in chosen:
            raise ValueError(f"{plain} is there twice, as {chosen[plain]} and as {name}")
        chosen[plain] = name
    return Chosen(chosen, wrapper, [key for key in found if key != wrapper])


def unwrapped(name: str, *, roots: Sequence[str]) -> tuple[str, str]:
    """Split a name in a file into its wrapper and the model's own name, "" if it has no root."""
    name = _without_wrapper_parts(name)
    plain = name.replace("/", ".") + "."
    starts = [0, *(match.end() for match in re.finditer(r"\.(?=.)", plain))]
    for start in starts:
        if any(plain.startswith(f"{root}.", start) for root in roots):
            return name[:start], plain[start:-1]
    return name, ""


def _without_wrapper_parts(name: str) -> str:
    parts = re.split(r"([./])", name)  # parts and what separates them, by turns
    kept = [i for i in range(0, len(parts), 2) if parts[i] not in WRAPPER_PARTS]
    return "".join(parts[i] + "".join(parts[i + 1 : i + 2]) for i in kept)


def _rank(wrapper: str) -> int:
    """Order in which several state dicts are preferred."""
    if _AVERAGE.search(wrapper):
        return 3
    return 2 if "student" in wrapper else int("teacher" in wrapper)


def other_model(names: Iterable[str]) -> str | None:
    """Description of a well-known model that cannot be used, by the names of its tensors."""
    known = list(names)
    for part, description in OTHER_MODELS:
        if any(part in name for name in known):
            return description
    return None


def from_vit(state: Mapping[str, Tensor]) -> StateDict:
    """An image transformer or a TimeSformer under ALPRO's names.

    Names can be timm's, those of TimeSformer's authors, or those of transformers. Attention and
    first norm of each block are copied to their counterparts over time, unless the file already has
    those. Classification heads are dropped.
    """
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
    renamed: StateDict = {}
    for name, value in state.items():
        if name in TRANSFORMERS_DROPPED:
            continue
        matches = ((pattern.match(name), here) for pattern, here in TRANSFORMERS_VIT)
        match, here = next((pair for pair in matches if pair[0]), (None, ""))
        renamed[match.expand(here) + name[match.end() :] if match else name] = value
    for names in QKV:
        for first in [name for name in renamed if f".{names[0]}." in name]:
            parts = [first.replace(f".{names[0]}.", f".{name}.") for name in names]
            if all(part in renamed for part in parts):
                merged = torch.cat([renamed.pop(part) for part in parts])
                renamed[first.replace(f".{names[0]}.", ".qkv.")] = merged
    return renamed


def from_bert(state: Mapping[str, Tensor]) -> StateDict:
    """A Hugging Face BERT, with or without heads and ``bert.`` prefix, under ALPRO's names."""
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
    """Where a checkpoint has the text encoder's other flavour: its names there and in the model.

    Question answering calls ``text_encoder.X`` what the other models call ``text_encoder.bert.X``.

    Args:
        state: Names of the checkpoint.
        model_state: Names of the model.

    Returns:
        The names to change; empty where the flavours agree.
    """
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
