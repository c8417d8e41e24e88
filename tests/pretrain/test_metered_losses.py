"""Accuracies beside the losses, by numbers that can be counted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from alpro.distributed.engine import SingleProcess
from alpro.modeling.contracts import TextFeatures, VideoFeatures
from alpro.tasks.pairs import GatheredBatch
from alpro.tasks.pretraining.batches import IGNORED
from alpro.tasks.pretraining.objective import (
    LossWithMetrics,
    measure_contrast,
    measure_entities,
    measure_matching,
    mlm_loss_and_accuracy,
)
from tests.factories import CPU

ALONE = SingleProcess(CPU, scale_loss=False)


def logits_of(*best: int, width: int) -> Tensor:
    """Rows whose best column is the given one."""
    return torch.nn.functional.one_hot(torch.tensor(best), width).float()


def shares(found: LossWithMetrics) -> dict[str, float]:
    return {name: value.item() for name, value in found.values("x").items() if name != "x_loss"}


def contrast(*, exclude: Tensor | None = None) -> LossWithMetrics:
    """Videos at 0, 90 and 180 degrees; captions at 10, 100 and 95."""

    def at(*degrees: float) -> Tensor:
        angles = torch.deg2rad(torch.tensor(degrees))
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    nothing = torch.zeros(3, 1, 2)
    return measure_contrast(
        VideoFeatures(nothing[:, None], at(0, 90, 180)[:, None]),
        TextFeatures(nothing, nothing[..., 0], at(10, 100, 95)),
        gathered=GatheredBatch(
            engine=ALONE,
            temperature=torch.tensor(0.5),
            counts=[3],
            num_tokens=1,
            same_video=exclude,
        ),
    )


def test_the_contrastive_loss_and_its_accuracies() -> None:
    found = contrast()
    assert found.count == 3
    # The second video and the third caption find each other, the third video the second caption.
    assert shares(found) == pytest.approx({"i2t_acc": 100 / 3, "t2i_acc": 200 / 3})


def test_excluded_pairs_are_no_contrastive_negatives() -> None:
    exclude = torch.zeros(3, 3, dtype=torch.bool)
    exclude[2, 1] = exclude[1, 2] = True
    found = contrast(exclude=exclude)
    assert shares(found) == pytest.approx({"i2t_acc": 100.0, "t2i_acc": 100.0})
    assert found.loss < contrast().loss


def test_the_matching_loss_and_its_accuracy() -> None:
    logits = logits_of(1, 0, 0, 0, 1, width=2)  # two positives, three negatives
    found = measure_matching(logits, num_positive=2, engine=ALONE)
    assert found.count == 5
    assert shares(found) == pytest.approx({"itm_acc": 60.0})


def test_the_masked_language_loss_and_its_accuracy() -> None:
    labels = torch.tensor([[IGNORED, 3, IGNORED], [0, IGNORED, 2]])
    found = mlm_loss_and_accuracy(logits_of(3, 1, 2, width=4), labels)
    assert found.count == 3
    assert shares(found) == pytest.approx({"mlm_acc": 200 / 3})


def test_a_batch_without_masked_words_has_no_accuracy() -> None:
    found = mlm_loss_and_accuracy(torch.zeros(0, 4), torch.full((2, 3), IGNORED))
    assert found.count == 0
    assert found.values("mlm") == {"mlm_loss": torch.tensor(0.0)}


def test_the_entity_loss_and_its_accuracies() -> None:
    targets = torch.tensor([[0.5, 0.5], [0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    logits = logits_of(0, 1, 0, 0, width=2)
    found = measure_entities(logits, targets, threshold=0.6)
    assert int(found.count) == 3
    assert shares(found) == pytest.approx({"mpm_acc": 200 / 3, "mpm_confident": 75.0})
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    terms = [0.1 * wrong + 0.9 * right, 0.2 * right + 0.8 * wrong, 0.7 * right + 0.3 * wrong]
    assert found.loss.item() == pytest.approx(sum(terms) / 3, rel=1e-5)


def test_a_batch_without_confident_entities_has_no_accuracy() -> None:
    found = measure_entities(torch.zeros(2, 2), torch.full((2, 2), 0.5), threshold=0.6)
    assert int(found.count) == 0
    assert shares(found) == {"mpm_confident": 0.0}
