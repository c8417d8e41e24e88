"""Losses of CLIP-ViP in place of VTC, in the framework's retrieval objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alpro.datasets.tokenization import Tokenizer
from alpro.families.clip_vip.config import LOSS_SPECS, RETRIEVAL_LOSSES
from alpro.families.clip_vip.losses import pair_loss
from tests.factories import make_batch, make_model, make_tokenizer, rows_of
from tests.families.clip_vip.test_losses import PARAMETERS
from tests.tasks.pair_tasks import LossAndGradients, assert_same, loss_and_gradients
from tests.tasks.pair_tasks import make_retrieval_task as make_task


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


def measured(tokenizer: Tokenizer, *, num_clips: int = 1, **changes: Any) -> LossAndGradients:
    objective = make_task(make_model(), tokenizer, use_itm=False, **changes)
    return loss_and_gradients(objective, make_batch(tokenizer, rows_of(4), num_clips=num_clips))


@pytest.mark.parametrize(("num_clips", "mask"), [(1, True), (3, False)])
def test_nce_is_twice_the_mean_of_both_directions(
    tokenizer: Tokenizer, num_clips: int, mask: bool
) -> None:
    vtc = measured(tokenizer, num_clips=num_clips, mask_same_video=mask)
    nce = pair_loss("NCELearnableTempLoss", {})
    found = measured(tokenizer, num_clips=num_clips, mask_same_video=mask, pair_loss=nce)
    doubled = {name: 2 * gradient for name, gradient in vtc.gradients.items()}
    assert_same(found, LossAndGradients(2 * vtc.loss, doubled))


@pytest.mark.parametrize("name", RETRIEVAL_LOSSES)
def test_gradients_with_a_cache_are_those_of_the_whole_batch(
    tokenizer: Tokenizer, name: str
) -> None:
    loss = pair_loss(name, PARAMETERS.get(name, {}))
    cut, whole = (measured(tokenizer, pair_loss=loss, grad_cache_size=size) for size in (3, 0))
    # A small temperature magnifies rounding, and weighted logits do it once more.
    assert_same(cut, whole, tolerance=1e-4)
    assert ("temp" in whole.gradients) == LOSS_SPECS[name].trained_temperature
