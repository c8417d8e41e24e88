from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from alpro.losses.masked_language import masked_language_loss


def test_two_words_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    first, second = math.log(math.exp(2) + 2) - 2, math.log(3)
    loss = masked_language_loss(logits, torch.tensor([0, 2]))
    assert loss.item() == pytest.approx((first + second) / 2)


def test_no_word_is_no_loss_with_a_zero_gradient() -> None:
    head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    tokens = torch.randn(2, 5, 4, requires_grad=True)
    none = torch.zeros(2, 5, dtype=torch.bool)
    loss = masked_language_loss(head(tokens[none]), torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    for tensor in (tokens, *head.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_it_is_computed_in_float32() -> None:
    logits = torch.randn(4, 50).to(torch.bfloat16)
    labels = torch.arange(4)
    loss = masked_language_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, masked_language_loss(logits.float(), labels))
