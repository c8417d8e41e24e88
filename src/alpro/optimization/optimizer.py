"""Optimizers, parameter groups, frozen parameters, and learning rates by the update number."""

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alpro.errors import InputError

ADAMW_EPSILON = 1e-6  # the original's; Adam and Adamax keep PyTorch's
SMALLEST_LEARNING_RATE = 1e-8  # the originals' floor; the last update of `linear` lands on it
STEP_DECAY = 0.5  # `multi_step`: factor for each milestone passed


class ParameterGroup(NamedTuple):
    """Parameters with a common learning-rate scale and weight decay."""

    parameters: list[nn.Parameter]
    lr_scale: float
    """Factor of the scheduled learning rate."""
    weight_decay: float


def decay_and_no_decay(model: nn.Module, *, weight_decay: float) -> list[ParameterGroup]:
    """Group trainable parameters; norms, biases and scalars do not decay."""
    return group_parameters(model, lambda _, p, __: (1.0, weight_decay if p.ndim > 1 else 0.0))


def group_parameters(
    model: nn.Module, settings: Callable[[str, nn.Parameter, nn.Module], tuple[float, float]]
) -> list[ParameterGroup]:
    """Group trainable parameters, a tied one by its first name, largest settings first.

    Args:
        model: holds the parameters.
        settings: from (full name, parameter, module that holds it): learning-rate scale and
            weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            module = model.get_submodule(name.rpartition(".")[0])
            groups.setdefault(settings(name, parameter, module), []).append(parameter)
    return [ParameterGroup(groups[key], *key) for key in sorted(groups, reverse=True)]


class DecayLastAdamW(Optimizer):
    """AdamW of the first transformers releases, which ClipBERT and CLIP-ViP use.

    Unlike `torch.optim.AdamW`, epsilon is added before the bias correction of the second moment,
    and the updated weights decay::

        p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps);  p -= lr * weight_decay * p
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            for parameter in parameters:
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                self._update(parameter, state, group)
        return loss

    def _update(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        first_beta, second_beta = group["betas"]
        state["step"] += 1
        state["exp_avg"].mul_(first_beta).add_(parameter.grad, alpha=1 - first_beta)
        state["exp_avg_sq"].mul_(second_beta).addcmul_(
            parameter.grad, parameter.grad, value=1 - second_beta
        )
        # Epsilon is added to the root of the uncorrected moment.
        first_correction = 1 - first_beta ** state["step"]
        second_correction = 1 - second_beta ** state["step"]
        size = group["lr"] * second_correction**0.5 / first_correction
        denominator = state["exp_avg_sq"].sqrt().add_(group["eps"])
        parameter.addcdiv_(state["exp_avg"], denominator, value=-size)
        # The updated weights decay.
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])


_ALGORITHMS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "adamw_decay_last": DecayLastAdamW,
}


def freeze_parameters(model: nn.Module, patterns: Collection[str]) -> list[str]:
    """Freeze the parameters whose full names match shell patterns; return their names.

    Raises:
        InputError: a pattern matches no parameter, or none is left to train.
    """
    # A pattern that matches nothing is a typing error.
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
    # Something must be left to train.
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
) -> Optimizer:
    """Build an optimizer over parameter groups; empty ones are left out.

    Args:
        groups: weight decay is decoupled for ``adamw`` and ``adamw_decay_last``, else an L2 term.
        algorithm: ``adamw``, ``adamw_decay_last``, ``adam`` or ``adamax``.
        learning_rate: rate of the first update; the schedule sets it for each update.
        betas: Adam's averaging factors.
    """
    # The originals' epsilon, and one fused kernel instead of several per tensor.
    options: dict[str, Any] = {"lr": learning_rate, "betas": betas}
    if algorithm.startswith("adamw"):
        options["eps"] = ADAMW_EPSILON
    if algorithm == "adamw":
        options["fused"] = True
    names = ("params", "lr_scale", "weight_decay")
    filled = [dict(zip(names, group, strict=True)) for group in groups if group.parameters]
    optimizer = _ALGORITHMS[algorithm](filled, **options)
    set_learning_rate(optimizer, learning_rate)
    return optimizer


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group the scheduled rate, times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)  # older restore files have none


def learning_rate_at(
    step: int,
    *,
    decay: str,
    learning_rate: float,
    num_train_steps: int,
    warmup_ratio: float,
    milestones: Sequence[int] = (),
) -> float:
    """Learning rate of one update, by ALPRO's formulas.

    Args:
        step: number of the update, counted from 1.
        decay: name of the schedule: ``linear``, ``cosine``, ``warmup_cosine`` (T2VLP's: the cosine
            runs over the whole run, and the first update has rate 0), ``invsqrt``, ``constant``
            or ``multi_step``.
        learning_rate: the peak.
        num_train_steps: number of updates of the whole run.
        warmup_ratio: share of the run with a rising rate; ``constant`` and ``multi_step`` have
            none.
        milestones: updates after which ``multi_step`` halves the rate, ascending.

    Raises:
        ValueError: for an unknown ``decay``.
    """
    # The factor of the peak, by the formula of each schedule.
    warmup_steps = int(warmup_ratio * num_train_steps)
    if decay == "constant":
        factor = 1.0
    elif decay == "multi_step":
        factor = STEP_DECAY ** bisect_right(milestones, step - 1)
    elif decay == "invsqrt":
        rise = max(1, warmup_steps)
        factor = step / rise if step <= rise else (rise / step) ** 0.5
    elif decay == "warmup_cosine":
        share = (step - 1) / num_train_steps
        factor = share / warmup_ratio if share < warmup_ratio else _half_cosine(share)
    elif decay not in ("linear", "cosine"):
        raise ValueError(f"unknown decay {decay!r}")
    elif step < warmup_steps:
        factor = step / warmup_steps
    elif decay == "linear":
        factor = max(0.0, (num_train_steps - step) / max(1, num_train_steps - warmup_steps))
    else:
        progress = (step - warmup_steps) / max(1, num_train_steps - warmup_steps)
        factor = _half_cosine(min(1.0, progress))
    return max(learning_rate * factor, SMALLEST_LEARNING_RATE)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
