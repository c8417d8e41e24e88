"""Losses of masked words and of prompted entities, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from alpro.losses import is_confident, masked_language_loss, prompted_entity_loss


def test_the_masked_language_loss_of_two_words_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    first, second = math.log(math.exp(2) + 2) - 2, math.log(3)
    loss = masked_language_loss(logits, torch.tensor([0, 2]))
    assert loss.item() == pytest.approx((first + second) / 2)


def test_the_masked_language_loss_of_no_word_is_zero_with_a_zero_gradient() -> None:
    head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    tokens = torch.randn(2, 5, 4, requires_grad=True)
    none = torch.zeros(2, 5, dtype=torch.bool)
    loss = masked_language_loss(head(tokens[none]), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    for tensor in (tokens, *head.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_the_masked_language_loss_is_in_float32() -> None:
    logits = torch.randn(4, 50).to(torch.bfloat16)
    labels = torch.arange(4)
    loss = masked_language_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, masked_language_loss(logits.float(), labels))


TARGETS = torch.tensor([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])


def test_the_prompted_entity_loss_of_three_samples_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [5.0, -5.0]])
    # The first sample's prediction is (3/4, 1/4), the second's (1/2, 1/2).
    first = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    loss = prompted_entity_loss(logits, TARGETS, threshold=0.6)
    assert loss.item() == pytest.approx((first + math.log(2)) / 2)


def test_the_best_entity_decides_which_samples_count() -> None:
    assert is_confident(TARGETS, threshold=0.75).tolist() == [True, True, False]
    assert is_confident(TARGETS, threshold=0.0).tolist() == [True] * 3
    # Which entity is the best plays no part: the first one is as good as any.
    assert is_confident(TARGETS.flip(1), threshold=0.75).tolist() == [True, True, False]


def test_samples_below_the_threshold_change_nothing() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = prompted_entity_loss(logits, TARGETS, threshold=0.6)
    torch.testing.assert_close(loss, prompted_entity_loss(logits[:2], TARGETS[:2], threshold=0.6))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.any(dim=1).tolist() == [True, True, False]


def test_the_prompted_entity_loss_of_no_sample_is_zero_with_a_zero_gradient() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    loss = prompted_entity_loss(logits, TARGETS, threshold=0.95)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_prompted_entity_loss_is_in_float32() -> None:
    logits = torch.randn(3, 2).to(torch.bfloat16)
    loss = prompted_entity_loss(logits, TARGETS, threshold=0.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, prompted_entity_loss(logits.float(), TARGETS, threshold=0.0))
