"""Tables that bring the weights of other projects under ALPRO's parameter names. Pure.

The functions take and return plain state dicts (name -> tensor); reading files is not their task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

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
VIT_DROPPED = ("head.", "head_dist.", "pre_logits.", "fc_norm.")
BERT_DROPPED = ("bert.pooler.", "cls.seq_relationship.")

# Image weights that also start the attention over time: (image name, name over time).
TEMPORAL_COPIES = ((".attn.", ".temporal_attn."), (".norm1.", ".temporal_norm1."))

# Names in checkpoints converted from TensorFlow: (suffix there, suffix here).
TENSORFLOW_SUFFIXES = ((".gamma", ".weight"), (".beta", ".bias"))

# What the two flavours of the text encoder (src/modeling/text.py) call the modules they share.
BERT_PREFIX = f"{TEXT_PREFIX}bert."
BERT_PARTS = ("embeddings.", "encoder.")

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
FILE_PREFIXES = ("module.", "model.")


def unwrap(loaded: Mapping[str, Any]) -> StateDict:
    """Find the state dict in what a checkpoint file holds.

    Takes it out of a surrounding mapping (`WRAPPERS`) and strips a prefix that all names share
    (`FILE_PREFIXES`, as left by wrappers of parallel training).
    """
    state = loaded
    for key in WRAPPERS:
        inner = state.get(key)
        if isinstance(inner, Mapping):
            state = inner
    for prefix in FILE_PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return cast("StateDict", dict(state))


def from_vit(state: Mapping[str, Tensor]) -> StateDict:
    """An image transformer (timm's names) or a TimeSformer (its own) under ALPRO's names.

    Attention and first norm of each block are copied to their counterparts over time, unless the
    file already has those. Classification heads are dropped.
    """
    kept = {key: value for key, value in state.items() if not key.startswith(VIT_DROPPED)}
    renamed = dict(kept)
    for key, value in kept.items():
        for over_space, over_time in TEMPORAL_COPIES:
            if key.startswith("blocks.") and over_space in key:
                renamed.setdefault(key.replace(over_space, over_time), value)
    return {VIDEO_PREFIX + key: value for key, value in renamed.items()}


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
