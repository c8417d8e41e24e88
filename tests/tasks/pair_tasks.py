"""Objectives over matching pairs, what they give, and negatives that are not left to chance."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine, SingleProcess
from alpro.families.alpro.model import AlproForRetrieval
from alpro.losses import NO_NEGATIVE
from alpro.tasks.retrieval.objective import RetrievalObjective
from alpro.training.objective import Objective
from tests.factories import CPU, MEAN, STD, make_evaluator


def make_retrieval_task(
    model: AlproForRetrieval,
    tokenizer: Tokenizer,
    *,
    engine: Engine | None = None,
    clip_aggregation: str = "mean",
    **changes: Any,
) -> RetrievalObjective:
    """The task in its first update; ``changes`` are further arguments of its class."""
    engine = engine or SingleProcess(CPU, scale_loss=False)
    arguments: dict[str, Any] = {
        **{"use_itc": True, "use_itm": True, "itm_start_step": 1},
        **{"mask_same_video": False, "validation_batch": 64, **changes},
    }
    matching = arguments["use_itm"]
    task = RetrievalObjective(
        model,
        engine=engine,
        normalize=Normalize(MEAN, STD),
        evaluator=make_evaluator(
            model,
            tokenizer,
            engine=engine,
            use_matching=matching,
            clip_aggregation=clip_aggregation,
        ),
        **arguments,
    )
    task.on_update_start(1)
    return task.train()


class LossAndGradients(NamedTuple):
    """The loss of a batch, and the gradient of every parameter that has one."""

    loss: float
    gradients: dict[str, Tensor]


def loss_and_gradients(
    task: Objective, *batches: Any, engine: Engine | None = None
) -> LossAndGradients:
    """The last batch's loss, its mean over the ranks, and the gradients of all, summed."""
    engine = engine or SingleProcess(CPU, scale_loss=False)
    engine.prepare(task, torch.optim.SGD(task.model.parameters(), lr=0.0))
    for number, batch in enumerate(batches, 1):
        loss = task(batch)["loss"]
        engine.backward(loss, last_micro_step=number == len(batches))
    return LossAndGradients(
        engine.sum({"loss": float(loss.detach())})["loss"] / engine.size,
        gradients_of(task.model),
    )


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of every parameter that has one."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(
    found: LossAndGradients, expected: LossAndGradients, *, tolerance: float = 1e-5
) -> None:
    """The same loss and gradients, but for rounding."""
    assert abs(found.loss - expected.loss) <= tolerance * abs(expected.loss)
    assert found.gradients.keys() == expected.gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.gradients.values())
    assert largest > 1e-2
    for name, gradient in expected.gradients.items():
        # A bias of keys has the gradient 0, but for rounding: 1 is the scale of the largest.
        scale = max(float(gradient.abs().max()), 1e-2 * largest)
        difference = float((found.gradients[name] - gradient).abs().max())
        assert difference <= tolerance * scale, name


def hardest(scores: Tensor, forbidden: Tensor, generator: torch.Generator | None) -> Tensor:  # noqa: ARG001
    """The most similar of what may be drawn, in place of a random one."""
    best = scores.detach().masked_fill(forbidden, -torch.inf).argmax(dim=1)
    return best.masked_fill(forbidden.all(dim=1), NO_NEGATIVE)


def hardest_negatives() -> AbstractContextManager[Any]:
    """Context in which the negatives of VTM are the most similar ones."""
    return mock.patch("alpro.losses._draw", hardest)


def hardest_negatives_within(counts: list[int]) -> AbstractContextManager[Any]:
    """The same where one process stands for several of so many pairs, each with its own."""
    rank_of = torch.repeat_interleave(torch.tensor(counts))  # (G,)
    others = rank_of[:, None] != rank_of[None, :]  # (G, G)

    def draw(scores: Tensor, forbidden: Tensor, generator: torch.Generator | None) -> Tensor:
        return hardest(scores, forbidden | others, generator)

    return mock.patch("alpro.losses._draw", draw)
