"""AdamW as the originals have it, for results that shall agree with theirs update by update."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class DecayLastAdamW(Optimizer):
    """AdamW of the first transformers releases, which ClipBERT and CLIP-ViP use.

    It differs from `torch.optim.AdamW` in two places: epsilon is added to the root of the second
    moment before that is corrected for its bias, and decay comes after the step, of weights that
    have moved already::

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
        first_correction = 1 - first_beta ** state["step"]
        second_correction = 1 - second_beta ** state["step"]
        size = group["lr"] * second_correction**0.5 / first_correction
        denominator = state["exp_avg_sq"].sqrt().add_(group["eps"])
        parameter.addcdiv_(state["exp_avg"], denominator, value=-size)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
