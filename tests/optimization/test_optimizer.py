from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from src.errors import InputError
from src.optimization.optimizer import build_optimizer, freeze_parameters
from tests.factories import make_model


def optimizer_of(model: nn.Module, **changes: object) -> torch.optim.Optimizer:
    arguments = {
        **{"algorithm": "adamw", "learning_rate": 0.1, "betas": (0.9, 0.98), "weight_decay": 0.5},
        **changes,
    }
    return build_optimizer(model, **arguments)  # type: ignore[arg-type]


def test_biases_norms_and_the_temperature_do_not_decay() -> None:
    model = make_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = optimizer_of(model).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    without = {names[id(p)] for p in others["params"]}
    assert {"temp", "vision_proj.bias", "visual_encoder.model.norm.weight"} <= without
    assert not {name for name in without if name.endswith("proj.weight")}
    with_decay = {names[id(p)] for p in decaying["params"]}
    assert {"vision_proj.weight", "visual_encoder.model.patch_embed.proj.weight"} <= with_decay
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert with_decay | without == trainable
    assert not with_decay & without


def test_frozen_parameters_are_left_alone() -> None:
    model = make_model()
    frozen = freeze_parameters(model, ["visual_encoder.*.attn.*", "temp", "*.temporal_attn.*"])
    assert "temp" in frozen
    assert {name.split(".")[-3] for name in frozen[1:]} == {"attn", "temporal_attn"}
    assert frozen == sorted(frozen)
    groups = optimizer_of(model).param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if name in frozen:
            assert not parameter.requires_grad
            assert id(parameter) not in trained


def test_a_pattern_without_effect_is_an_error() -> None:
    with pytest.raises(InputError, match=r"freeze: the pattern 'visual_encodr\.\*' matches no"):
        freeze_parameters(make_model(), ["temp", "visual_encodr.*"])


def test_adamw_by_hand() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 1.0)
    optimizer = optimizer_of(model)
    weight, bias, first, second = 2.0, 1.0, 0.0, 0.0
    for update, gradient in enumerate((3.0, -0.5), start=1):
        model.weight.grad = torch.full((1, 1), gradient)
        model.bias.grad = torch.full((1,), gradient)
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        root = math.sqrt(second / (1 - 0.98**update))
        move = 0.1 * (first / (1 - 0.9**update)) / (root + 1e-6)
        weight = weight * (1 - 0.1 * 0.5) - move
        bias -= move
        assert model.weight.item() == pytest.approx(weight, rel=1e-6)
        assert model.bias.item() == pytest.approx(bias, rel=1e-6)


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("adam", torch.optim.Adam), ("adamax", torch.optim.Adamax)]
)
def test_the_other_algorithms(algorithm: str, kind: type) -> None:
    optimizer = optimizer_of(nn.Linear(2, 2), algorithm=algorithm)
    assert type(optimizer) is kind
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.98)] * 2
