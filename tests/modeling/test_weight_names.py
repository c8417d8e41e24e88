from __future__ import annotations

import torch
from transformers import BertForPreTraining

from src.modeling.checkpoints import adapt_state_dict, compare
from src.modeling.weight_names import (
    BERT_LEAVES_AT_INIT,
    VIT_LEAVES_AT_INIT,
    from_bert,
    from_vit,
    text_renames,
    unwrap,
)
from tests.modeling.models import small_bert, small_model, small_qa_model, small_timesformer

NEW_IN_ALPRO = ("temp", "vision_proj.*", "text_proj.*", "itm_head.*")


def image_transformer_state() -> dict[str, torch.Tensor]:
    """A state dict with timm's names, of the small model's shapes."""
    state = small_timesformer().state_dict()
    own = ("temporal", "time_embed", "head")
    kept = {key: torch.randn_like(value) for key, value in state.items()
            if not any(part in key for part in own)}  # fmt: skip
    return {**kept, "head.weight": torch.zeros(1000, 16), "head.bias": torch.zeros(1000)}


def test_image_transformer_fills_attention_over_space_and_time() -> None:
    state = image_transformer_state()
    renamed = from_vit(state)
    prefix = "visual_encoder.model.blocks.1."
    for part in ("qkv.weight", "qkv.bias", "proj.weight", "proj.bias"):
        expected = state[f"blocks.1.attn.{part}"]
        assert renamed[f"{prefix}attn.{part}"] is expected
        assert renamed[f"{prefix}temporal_attn.{part}"] is expected
    assert renamed[f"{prefix}temporal_norm1.weight"] is state["blocks.1.norm1.weight"]
    assert "visual_encoder.model.head.weight" not in renamed


def test_attention_over_time_in_the_file_wins() -> None:
    state = image_transformer_state()
    state["blocks.0.temporal_attn.qkv.bias"] = torch.ones(48)
    assert from_vit(state)["visual_encoder.model.blocks.0.temporal_attn.qkv.bias"].min() == 1


def test_image_transformer_and_bert_together_fill_the_model() -> None:
    model = small_model()
    bert = BertForPreTraining(small_bert().bert.config).state_dict()
    state = {**from_vit(image_transformer_state()), **from_bert(bert)}
    adapted = adapt_state_dict(state, model.state_dict())
    may_be_missing = (*VIT_LEAVES_AT_INIT, *NEW_IN_ALPRO)
    assert not compare(adapted, model, may_be_missing=may_be_missing)


def tensorflow_name(key: str) -> str:
    key = key.replace("LayerNorm.weight", "LayerNorm.gamma")
    return key.replace("LayerNorm.bias", "LayerNorm.beta")


def test_bert_without_prefix_and_head_and_with_older_names() -> None:
    model = small_model()
    bert = {
        key.removeprefix("bert."): value
        for key, value in BertForPreTraining(small_bert().bert.config).state_dict().items()
        if key.startswith("bert.") and "pooler" not in key
    }
    older = {tensorflow_name(key): value for key, value in bert.items()}
    assert from_bert(bert).keys() == from_bert(older).keys()
    adapted = adapt_state_dict(from_bert(older), model.state_dict())
    may_be_missing = ("visual_encoder.*", *BERT_LEAVES_AT_INIT, *NEW_IN_ALPRO)
    mismatch = compare(adapted, model, may_be_missing=may_be_missing)
    assert not mismatch, mismatch.describe()


def test_bert_fills_the_headless_flavour() -> None:
    model = small_qa_model()
    bert = BertForPreTraining(small_bert().bert.config).state_dict()
    adapted = adapt_state_dict(from_bert(bert), model.state_dict())
    may_be_missing = ("visual_encoder.*", "classifier.*", *NEW_IN_ALPRO)
    mismatch = compare(adapted, model, may_be_missing=may_be_missing)
    assert not mismatch, mismatch.describe()
    words = "embeddings.word_embeddings.weight"
    assert adapted[f"text_encoder.{words}"] is bert[f"bert.{words}"]


def test_renames_between_flavours() -> None:
    with_prefix = ("text_encoder.bert.encoder.a", "text_encoder.cls.b", "temp")
    without = ("text_encoder.encoder.a", "classifier.0.bias", "temp")
    there_and_back = {with_prefix[0]: without[0]}
    assert text_renames(with_prefix, without) == there_and_back
    assert text_renames(without, with_prefix) == {value: k for k, value in there_and_back.items()}
    assert text_renames(with_prefix, with_prefix) == {}
    assert text_renames(without, without) == {}
    assert text_renames(with_prefix, ("temp", "text_encoder.other.a")) == {}


def test_unwrap_finds_the_weights() -> None:
    weight = torch.zeros(1)
    assert unwrap({"a.b": weight}) == {"a.b": weight}
    wrapped = {"epoch": 3, "model_state": {"module.model.a": weight, "module.model.b": weight}}
    assert unwrap(wrapped) == {"a": weight, "b": weight}
