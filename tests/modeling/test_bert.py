from __future__ import annotations

import pytest
import torch
from transformers import BertForMaskedLM

from alpro.modeling.bert import SplitBertBase
from tests.modeling.models import (
    VOCAB_SIZE,
    WIDTH,
    random_text,
    small_bert,
    small_headless_bert,
)


@torch.no_grad()
def test_both_halves_together_are_the_bert_of_transformers() -> None:
    split = small_bert().eval()
    whole = BertForMaskedLM(split.bert.config).eval()
    whole.load_state_dict(split.state_dict(), strict=False)
    ids, mask = random_text()
    expected = whole.bert(ids, attention_mask=mask).last_hidden_state
    ours = split.fuse(split.encode(ids, mask), mask)
    shown = mask.bool()
    torch.testing.assert_close(ours[shown], expected[shown], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model = small_bert().eval()
    ids, mask = random_text(1, length=4)
    padded_ids = torch.cat([ids, torch.full((1, 3), 7)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(1, 3, dtype=torch.long)], dim=1)
    short, long = model.encode(ids, mask), model.encode(padded_ids, padded_mask)
    torch.testing.assert_close(long[:, :4], short)
    torch.testing.assert_close(model.fuse(long, padded_mask)[:, :4], model.fuse(short, mask))


def test_first_position_alone_has_the_same_value_and_gradients() -> None:
    model = small_bert().eval()
    tokens = torch.randn(2, 6, WIDTH)
    _, mask = random_text(2, length=6)
    whole, first = model.fuse(tokens, mask)[:, 0], model.fuse_first(tokens, mask)
    torch.testing.assert_close(first, whole)
    parameters = [p for layer in model.layers[model.fusion_layer :] for p in layer.parameters()]
    expected = torch.autograd.grad(whole.square().sum(), parameters)
    ours = torch.autograd.grad(first.square().sum(), parameters)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_acts_in_training_only() -> None:
    model = small_bert()
    ids, mask = random_text()
    assert not torch.equal(model.encode(ids, mask), model.encode(ids, mask))
    model.eval()
    assert torch.equal(model.encode(ids, mask), model.encode(ids, mask))


def test_mlm_head_is_tied_and_frozen_unless_trained() -> None:
    words = "bert.embeddings.word_embeddings.weight"
    kept = small_bert()
    assert kept.cls.predictions.decoder.weight is kept.bert.embeddings.word_embeddings.weight
    assert kept.cls.predictions.decoder.bias is kept.cls.predictions.bias
    frozen = {name for name, p in kept.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in kept.named_parameters() if name.startswith("cls.")}
    assert words not in frozen
    trained = small_bert(train_mlm_head=True)
    assert all(p.requires_grad for p in trained.parameters())
    assert trained.cls(torch.zeros(1, 2, WIDTH)).shape == (1, 2, VOCAB_SIZE)


@torch.no_grad()
def test_both_flavours_run_alike() -> None:
    """Only the names differ: with the same weights they give the same numbers, bit for bit."""
    with_head, headless = small_bert().eval(), small_headless_bert().eval()
    state = {
        name.removeprefix("bert."): value
        for name, value in with_head.state_dict().items()
        if name.startswith("bert.")
    }
    headless.load_state_dict(state)
    ids, mask = random_text()

    def outputs(model: SplitBertBase) -> list[torch.Tensor]:
        tokens = model.encode(ids, mask)
        return [tokens, model.fuse(tokens, mask), model.fuse_first(tokens, mask)]

    for theirs, ours in zip(outputs(with_head), outputs(headless), strict=True):
        assert torch.equal(theirs, ours)
    assert not torch.equal(outputs(headless)[0], outputs(small_headless_bert().eval())[0])


def test_headless_flavour_is_trained_whole() -> None:
    model = small_headless_bert()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {name.partition(".")[0] for name in model.state_dict()} == {"embeddings", "encoder"}
    assert model.embeddings.word_embeddings.weight[0].abs().max() == 0  # padding


def test_mlm_head_can_be_left_out() -> None:
    assert not any(name.startswith("cls.") for name in small_bert(with_mlm_head=False).state_dict())


def test_fusion_layer_must_exist() -> None:
    with pytest.raises(ValueError, match="fusion_layer 4 is not one of the 4 layers"):
        small_bert(fusion_layer=4)
