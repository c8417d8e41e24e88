"""Reading golden cases, and making the model and the weights they were measured with.

The rule of the weights is that of ``golden/README.md``: each tensor is made from its own name.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from alpro.families.alpro.model import INITIAL_TEMPERATURE, AlproForRetrieval, TimeSformerEncoder
from alpro.families.alpro.pretraining_model import AlproForPretraining, Prompter
from alpro.families.alpro.question_answering import AlproForQuestionAnswering
from alpro.modeling.bert import SplitBert, SplitBertBase, SplitBertEncoder
from alpro.modeling.timesformer import TimeSformer

Flavour = TypeVar("Flavour", bound=SplitBertBase)

CLIP_VIP_SCALE = 4.6052  # log
FULL_SIZE = {
    "width": 768,
    "depth": 12,
    "heads": 12,
    "layers": 12,
    "fusion": 6,
    "inter": 3072,
    "vocab": 30522,
    "img": 224,
    "frm": 8,
}


@dataclass(frozen=True)
class Case:
    """One golden case: its name, its JSON and its arrays."""

    name: str
    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def tensor(self, key: str) -> Tensor:
        """An array as a tensor."""
        return torch.from_numpy(self.arrays[key])


def load_case(folder: Path, name: str) -> Case:
    """Read ``name.json`` and ``name.npz``."""
    with np.load(folder / f"{name}.npz") as arrays:
        return Case(name, json.loads((folder / f"{name}.json").read_text()), dict(arrays))


def retrieval_model(config: Mapping[str, int]) -> AlproForRetrieval:
    """The retrieval model of a case's ``config``, in evaluation mode."""
    return AlproForRetrieval(_video_encoder(config), _text_encoder(SplitBert, config)).eval()


def question_answering_model(config: Mapping[str, int]) -> AlproForQuestionAnswering:
    """The question answering model of a case's ``config``, in evaluation mode."""
    return AlproForQuestionAnswering(
        _video_encoder(config),
        _text_encoder(SplitBertEncoder, config),
        num_labels=config["labels"],
    ).eval()


def prompter_model(config: Mapping[str, int]) -> Prompter:
    """The prompter of a case's ``config``, in evaluation mode."""
    return Prompter(
        _video_encoder(config), _text_encoder(SplitBert, config), num_entities=config["ents"]
    ).eval()


def pretraining_model(config: Mapping[str, int]) -> AlproForPretraining:
    """The pretraining model of a case's ``config``, in evaluation mode."""
    return AlproForPretraining(
        _video_encoder(config),
        _text_encoder(partial(SplitBert, train_mlm_head=True), config),
        prompter=prompter_model(config),
    ).eval()


def _video_encoder(config: Mapping[str, int]) -> TimeSformerEncoder:
    return TimeSformerEncoder(
        TimeSformer(
            image_size=config["img"],
            num_frames=config["frm"],
            embed_dim=config["width"],
            depth=config["depth"],
            num_heads=config["heads"],
        )
    )


def _text_encoder(flavour: Callable[..., Flavour], config: Mapping[str, int]) -> Flavour:
    return flavour(
        vocab_size=config["vocab"],
        hidden_size=config["width"],
        num_hidden_layers=config["layers"],
        num_attention_heads=config["heads"],
        intermediate_size=config["inter"],
        fusion_layer=config["fusion"],
    )


def is_filled(key: str, tensor: Tensor) -> bool:
    """Whether the rule gives this entry of a state dict a value of its own."""
    return tensor.is_floating_point() and ".cls.predictions.decoder." not in key


def golden_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """The value that the rule gives to a tensor of this name and shape."""
    if key.rpartition(".")[2] == "temp":
        return torch.tensor(INITIAL_TEMPERATURE)
    if key == "clipmodel.logit_scale":
        return torch.tensor(CLIP_VIP_SCALE)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    z = torch.from_numpy(np.asarray(rng.standard_normal(shape, dtype=np.float32)))
    if len(shape) == 1:
        return 1 + 0.05 * z if key.endswith(".weight") else 0.05 * z
    if "prompt_feat" in key:
        return z
    if len(shape) == 2:
        return z * shape[-1] ** -0.5
    if len(shape) == 4:
        return z * math.prod(shape[1:]) ** -0.5
    return 0.1 * z


@torch.no_grad()
def fill(model: torch.nn.Module) -> float:
    """Give every tensor of a model the value of the rule, in place; returns their sum."""
    total = 0.0
    for key, tensor in model.state_dict().items():
        if is_filled(key, tensor):
            tensor.copy_(golden_tensor(key, tuple(tensor.shape)))
            total += float(tensor.double().sum())
    return total
