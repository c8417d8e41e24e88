"""Parameter groups of CLIP-ViP."""

from __future__ import annotations

from torch import nn

from alpro.optimization.optimizer import ParameterGroup

# Parts of names; the original means to spare norms as well, by names that CLIP's do not have.
_NO_DECAY = ("bias", "logit_scale")


def scaled_groups(
    model: nn.Module, *, weight_decay: float, scaled: str, scale: float
) -> list[ParameterGroup]:
    """Group trainable parameters by learning rate and weight decay.

    Args:
        model: with the original's parameter names.
        weight_decay: of all but biases and the temperature.
        scaled: part of the names whose learning rate is scaled; empty for none.
        scale: factor of their learning rate.

    Returns:
        Scaled ones with and without decay, then the others with and without.
    """
    groups = [
        ParameterGroup([], factor, decay)
        for factor in (scale, 1.0)
        for decay in (weight_decay, 0.0)
    ]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_other = not scaled or scaled not in name
            spared = any(part in name for part in _NO_DECAY)
            groups[2 * is_other + spared].parameters.append(parameter)
    return groups
