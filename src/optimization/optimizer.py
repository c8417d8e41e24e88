"""Optimizers: which parameters learn, which decay, and the algorithm."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from src.errors import InputError

ADAMW_EPSILON = 1e-6  # the original's; Adam and Adamax keep PyTorch's

_ALGORITHMS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
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


def decays(parameter: nn.Parameter) -> bool:
    """Whether weight decay applies: to matrices and convolutions, not to norms, biases, scalars."""
    return parameter.ndim > 1


def build_optimizer(
    model: nn.Module,
    *,
    algorithm: str,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters, in two groups: with and without weight decay.

    Args:
        model: frozen parameters (``requires_grad`` false) are left out.
        algorithm: ``adamw``, ``adam`` or ``adamax``.
        learning_rate: rate of the first update; the schedule sets it anew at each update.
        betas: Adam's two averaging factors.
        weight_decay: decoupled for ``adamw``; for the others it is PyTorch's L2 term.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if decays(p)], "weight_decay": weight_decay},
        {"params": [p for p in trainable if not decays(p)], "weight_decay": 0.0},
    ]
    options: dict[str, Any] = {"lr": learning_rate, "betas": betas}
    if algorithm == "adamw":
        # Fused: one kernel over all tensors instead of several per tensor.
        options |= {"eps": ADAMW_EPSILON, "fused": True}
    return _ALGORITHMS[algorithm]([group for group in groups if group["params"]], **options)
