"""Parameter groups: which parameters share a learning rate and a weight decay."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn


class ParameterGroup(NamedTuple):
    """Parameters that are updated alike."""

    parameters: list[nn.Parameter]
    lr_scale: float
    """Factor of the scheduled learning rate."""
    weight_decay: float


class GroupRule(NamedTuple):
    """Chooses parameters by name and by the type of their module, and says how they learn."""

    patterns: tuple[str, ...] = ("*",)
    """Shell patterns over full parameter names; one must match."""
    module_types: tuple[type[nn.Module], ...] = ()
    """Types of the module that holds the parameter; any where empty."""
    lr_scale: float = 1.0
    weight_decay: float = 0.0

    def applies_to(self, name: str, module: nn.Module) -> bool:
        """Return whether a parameter of this full name, held by this module, is chosen."""
        if self.module_types and not isinstance(module, self.module_types):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


def decay_and_no_decay(model: nn.Module, *, weight_decay: float) -> list[ParameterGroup]:
    """Two groups: matrices and convolutions decay; norms, biases and scalars do not.

    Args:
        model: frozen parameters (``requires_grad`` false) are left out.
        weight_decay: of the first group.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    return [
        ParameterGroup([p for p in trainable if uses_weight_decay(p)], 1.0, weight_decay),
        ParameterGroup([p for p in trainable if not uses_weight_decay(p)], 1.0, 0.0),
    ]


def uses_weight_decay(parameter: nn.Parameter) -> bool:
    """Return whether weight decay applies: not to norms, biases and scalars."""
    return parameter.ndim > 1


def groups_by_rules(model: nn.Module, rules: Sequence[GroupRule]) -> list[ParameterGroup]:
    """One group for each rule, in their order, of the parameters to which it applies first.

    Args:
        model: frozen parameters are left out; a tied one goes by its first name.
        rules: the last one should apply to everything.

    Raises:
        ValueError: no rule applies to a trainable parameter.
    """
    groups = [ParameterGroup([], rule.lr_scale, rule.weight_decay) for rule in rules]
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        module = model.get_submodule(name.rpartition(".")[0])
        index = next((i for i, rule in enumerate(rules) if rule.applies_to(name, module)), None)
        if index is None:
            raise ValueError(f"no rule applies to the parameter {name}")
        groups[index].parameters.append(parameter)
    return groups
