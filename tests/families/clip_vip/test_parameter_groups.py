"""Parameter groups of CLIP-ViP, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from alpro.errors import InputError
from alpro.families.clip_vip.family import parameter_groups


def _model() -> nn.Module:
    model = nn.Module()
    model.add_module("vision", nn.Linear(2, 2))
    model.add_module("layer_norm1", nn.LayerNorm(2))
    model.register_parameter("logit_scale", nn.Parameter(torch.zeros(())))
    return model


def _names(scaled: str, model: nn.Module) -> list[tuple[list[str], float, float]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    config = SimpleNamespace(weight_decay=0.2, lr_mul_prefix=scaled, lr_mul=10.0)
    groups = parameter_groups(model, config)
    return [([names[each] for each in group.parameters], *group[1:]) for group in groups]


def test_norms_decay_and_biases_and_the_temperature_do_not() -> None:
    assert _names("", _model()) == [
        (["vision.weight", "layer_norm1.weight"], 1.0, 0.2),
        (["logit_scale", "vision.bias", "layer_norm1.bias"], 1.0, 0.0),
    ]


def test_a_part_of_the_name_scales_the_learning_rate_of_what_is_trained() -> None:
    model = _model()
    model.get_parameter("vision.bias").requires_grad_(False)
    assert _names("vision", model)[0] == (["vision.weight"], 10.0, 0.2)
    assert _names("logit", model)[0] == (["logit_scale"], 10.0, 0.0)


def test_a_prefix_of_no_parameter_is_refused() -> None:
    config = SimpleNamespace(weight_decay=0.2, lr_mul=10.0, lr_mul_prefix="logitscale")
    with pytest.raises(InputError, match="lr_mul_prefix: no parameter has logitscale in its name"):
        parameter_groups(nn.Linear(2, 2), config)
