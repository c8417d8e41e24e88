from __future__ import annotations

import pytest
from torch import nn

from alpro.optimization.parameter_groups import (
    GroupRule,
    ParameterGroup,
    decay_and_no_decay,
    groups_by_rules,
)
from tests.factories import make_model


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


def test_parameters_go_to_the_first_rule_that_applies() -> None:
    model = two_towers()
    rules = [
        GroupRule(module_types=(nn.LayerNorm,)),
        GroupRule(("*.bias",), lr_scale=2.0),
        GroupRule(("clip.*",), lr_scale=0.1, weight_decay=0.2),
        GroupRule(weight_decay=0.2),
    ]
    groups = groups_by_rules(model, rules)
    assert names_in(model, groups) == [
        ["clip.1.weight", "clip.1.bias"],
        ["clip.0.bias", "fusion.bias"],
        ["clip.0.weight"],
        ["fusion.weight"],
    ]
    assert [(group.lr_scale, group.weight_decay) for group in groups] == [
        *((1.0, 0.0), (2.0, 0.0), (0.1, 0.2), (1.0, 0.2))
    ]


def test_types_and_patterns_must_both_apply() -> None:
    model = two_towers()
    rules = [GroupRule(("fusion.*",), module_types=(nn.LayerNorm,)), GroupRule()]
    assert names_in(model, groups_by_rules(model, rules))[0] == []


def test_frozen_and_tied_parameters_are_in_no_second_group() -> None:
    model = two_towers()
    model.get_parameter("clip.0.weight").requires_grad_(False)
    model.get_submodule("fusion").weight = model.get_parameter("clip.1.weight")
    names = names_in(model, groups_by_rules(model, [GroupRule(("fusion.*",)), GroupRule()]))
    assert names == [["fusion.bias"], ["clip.0.bias", "clip.1.weight", "clip.1.bias"]]


def test_parameters_of_no_rule_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"no rule applies to the parameter clip\.0\.weight"):
        groups_by_rules(two_towers(), [GroupRule(("fusion.*",))])
