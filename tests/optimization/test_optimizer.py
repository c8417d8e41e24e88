"""Optimizers, frozen parameters and parameter groups."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import pytest
import torch
from torch import nn

from alpro.errors import InputError
from alpro.optimization.optimizer import (
    ParameterGroup,
    build_optimizer,
    decay_and_no_decay,
    freeze_parameters,
    group_parameters,
    set_learning_rate,
)
from tests.factories import make_model


def optimizer_of(model: nn.Module, algorithm: str = "adamw") -> torch.optim.Optimizer:
    groups = decay_and_no_decay(model, weight_decay=0.5)
    return build_optimizer(groups, algorithm=algorithm, learning_rate=0.1, betas=(0.9, 0.98))


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


def updates_by_hand(gradients: list[float], *, decay_last: bool) -> tuple[float, float]:
    """A decaying weight that starts at 2 and a bias that starts at 1, after Adam's updates."""
    weight, bias, first, second = 2.0, 1.0, 0.0, 0.0
    for update, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.98 * second + 0.02 * gradient**2
        correction = math.sqrt(1 - 0.98**update)
        if decay_last:
            root = (math.sqrt(second) + 1e-6) / correction
        else:
            root = math.sqrt(second) / correction + 1e-6
        move = 0.1 * (first / (1 - 0.9**update)) / root
        weight = (weight - move) * 0.95 if decay_last else weight * 0.95 - move
        bias -= move
    return weight, bias


# Gradients as small as epsilon: 1e-8 in place of 1e-6 would double the move.
@pytest.mark.parametrize("gradients", [[3.0, -0.5], [1e-6, 2e-6, -1e-6]], ids=["large", "small"])
@pytest.mark.parametrize("algorithm", ["adamw", "adamw_decay_last"])
def test_adamw_by_hand(algorithm: str, gradients: list[float]) -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 1.0)
    optimizer = optimizer_of(model, algorithm)
    for gradient in gradients:
        model.weight.grad = torch.full((1, 1), gradient)
        model.bias.grad = torch.full((1,), gradient)
        optimizer.step()
    expected = updates_by_hand(gradients, decay_last=algorithm == "adamw_decay_last")
    assert (model.weight.item(), model.bias.item()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("adam", torch.optim.Adam), ("adamax", torch.optim.Adamax)]
)
def test_the_other_algorithms(algorithm: str, kind: type) -> None:
    optimizer = optimizer_of(nn.Linear(2, 2), algorithm)
    assert type(optimizer) is kind
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.98)] * 2


def test_groups_learn_at_their_own_rates() -> None:
    slow, fast = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    groups = [
        ParameterGroup([slow], lr_scale=0.1, weight_decay=0.0),
        ParameterGroup([], lr_scale=5.0, weight_decay=0.0),
        ParameterGroup([fast], lr_scale=1.0, weight_decay=0.0),
    ]
    optimizer = build_optimizer(groups, algorithm="adamw", learning_rate=0.2, betas=(0.9, 0.98))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.2])
    set_learning_rate(optimizer, 0.4)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.04, 0.4])
    slow.grad, fast.grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    assert (fast / slow).tolist() == pytest.approx([10.0, 10.0])


@pytest.mark.parametrize("algorithm", ["adamw", "adamw_decay_last"])
def test_optimizers_continue_from_their_state(algorithm: str) -> None:
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    torch.manual_seed(0)
    whole, stopped, resumed = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    stopped.load_state_dict(whole.state_dict())
    first, second, third = (optimizer_of(m, algorithm) for m in (whole, stopped, resumed))
    steps(whole, first, range(4))
    steps(stopped, second, range(2))
    resumed.load_state_dict(stopped.state_dict())
    third.load_state_dict(second.state_dict())
    steps(resumed, third, range(2, 4))
    assert all(map(torch.equal, whole.state_dict().values(), resumed.state_dict().values()))


def test_states_without_a_scale_learn_at_the_scheduled_rate() -> None:
    optimizer = optimizer_of(nn.Linear(2, 2))
    state: dict[str, Any] = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["lr_scale"]
    optimizer.load_state_dict(state)
    set_learning_rate(optimizer, 0.3)
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.3]


def names_in(model: nn.Module, groups: list[ParameterGroup]) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(p)] for p in group.parameters] for group in groups]


def test_biases_norms_and_the_temperature_do_not_decay() -> None:
    model = make_model()
    groups = decay_and_no_decay(model, weight_decay=0.5)
    assert [(group.lr_scale, group.weight_decay) for group in groups] == [(1.0, 0.5), (1.0, 0.0)]
    with_decay, without = map(set, names_in(model, groups))
    assert {"temp", "vision_proj.bias", "visual_encoder.model.norm.weight"} <= without
    assert not {name for name in without if name.endswith("proj.weight")}
    assert {"vision_proj.weight", "visual_encoder.model.patch_embed.proj.weight"} <= with_decay
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert with_decay | without == trainable
    assert not with_decay & without


def two_towers() -> nn.Module:
    tower = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    return nn.ModuleDict({"clip": tower, "fusion": nn.Linear(2, 2)})


def test_parameters_are_grouped_by_their_settings() -> None:
    def settings(name: str, parameter: nn.Parameter, _: nn.Module) -> tuple[float, float]:
        return (0.1 if name.startswith("clip.") else 1.0, 0.2 if parameter.ndim > 1 else 0.0)

    model = two_towers()
    groups = group_parameters(model, settings)
    assert names_in(model, groups) == [
        ["fusion.weight"],
        ["fusion.bias"],
        ["clip.0.weight"],
        ["clip.0.bias", "clip.1.weight", "clip.1.bias"],
    ]
    assert [(group.lr_scale, group.weight_decay) for group in groups] == [
        *((1.0, 0.2), (1.0, 0.0), (0.1, 0.2), (0.1, 0.0))
    ]


def test_patterns_and_module_types_choose_groups() -> None:
    def settings(name: str, _: nn.Parameter, module: nn.Module) -> tuple[float, float]:
        if isinstance(module, nn.LayerNorm):
            return 1.0, 0.0
        if fnmatchcase(name, "*.bias"):
            return 2.0, 0.0
        return (0.1, 0.2) if fnmatchcase(name, "clip.*") else (1.0, 0.2)

    model = two_towers()
    groups = group_parameters(model, settings)
    members = zip(groups, names_in(model, groups), strict=True)
    assert {(group.lr_scale, group.weight_decay): names for group, names in members} == {
        (1.0, 0.0): ["clip.1.weight", "clip.1.bias"],
        (2.0, 0.0): ["clip.0.bias", "fusion.bias"],
        (0.1, 0.2): ["clip.0.weight"],
        (1.0, 0.2): ["fusion.weight"],
    }


def test_frozen_and_tied_parameters_are_in_no_second_group() -> None:
    model = two_towers()
    model.get_parameter("clip.0.weight").requires_grad_(False)
    model.get_submodule("fusion").weight = model.get_parameter("clip.1.weight")
    groups = group_parameters(model, lambda name, *_: (float(name.startswith("fusion.")), 0.0))
    names = names_in(model, groups)
    assert names == [["fusion.bias"], ["clip.0.bias", "clip.1.weight", "clip.1.bias"]]
