"""Optimizers: which parameters learn, and the algorithm."""

from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from alpro.errors import InputError
from alpro.optimization.adamw import DecayLastAdamW
from alpro.optimization.parameter_groups import ParameterGroup

ADAMW_EPSILON = 1e-6  # the original's; Adam and Adamax keep PyTorch's

_ALGORITHMS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "adamw_decay_last": DecayLastAdamW,
}


def freeze_parameters(model: nn.Module, patterns: Collection[str]) -> list[str]:
    """Stop training every parameter whose name matches one of the patterns.

    Args:
        model: its parameters' ``requires_grad`` is changed.
        patterns: shell patterns over full parameter names, such as ``visual_encoder.*.attn.*``.

    Returns:
        The names of the frozen parameters.

    Raises:
        InputError: if a pattern matches no parameter, or none is left to train.
    """
    frozen = []
    for pattern in patterns:
        matched = [name for name, _ in model.named_parameters() if fnmatchcase(name, pattern)]
        if not matched:
            example = next(name for name, _ in model.named_parameters())
            raise InputError(
                f"freeze: the pattern {pattern!r} matches no parameter. Patterns are shell "
                f"patterns over full names such as {example!r}."
            )
        for name in matched:
            model.get_parameter(name).requires_grad_(False)
        frozen += matched
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"freeze: {', '.join(map(repr, patterns))} leaves no parameter to train. Take a pattern"
            " away, or make it match fewer names."
        )
    return sorted(set(frozen))


def build_optimizer(
    groups: Sequence[ParameterGroup],
    *,
    algorithm: str,
    learning_rate: float,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:
    """Build an optimizer over parameter groups; empty ones are left out.

    Args:
        groups: each with its weight decay: decoupled for ``adamw`` and ``adamw_decay_last``; for
            the others it is PyTorch's L2 term. See :func:`set_learning_rate` for their scale.
        algorithm: ``adamw``, ``adamw_decay_last``, ``adam`` or ``adamax``.
        learning_rate: rate of the first update; the schedule sets it for each update.
        betas: Adam's two averaging factors.
    """
    options: dict[str, Any] = {"lr": learning_rate, "betas": betas}
    if algorithm.startswith("adamw"):
        options["eps"] = ADAMW_EPSILON
    if algorithm == "adamw":
        options["fused"] = True  # one kernel over all tensors instead of several per tensor
    optimizer = _ALGORITHMS[algorithm](
        [
            {
                "params": group.parameters,
                "weight_decay": group.weight_decay,
                "lr_scale": group.lr_scale,
            }
            for group in groups
            if group.parameters
        ],
        **options,
    )
    set_learning_rate(optimizer, learning_rate)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group the scheduled rate, times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)  # restore files of before have none
