from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BertForPreTraining,
    TimesformerConfig,
    TimesformerModel,
    ViTConfig,
    ViTModel,
)

from alpro.families.alpro.checkpoint import (
    BERT_LEAVES_AT_INIT,
    ROOTS,
    VIT_LEAVES_AT_INIT,
    adapt_state_dict,
    from_bert,
    from_vit,
    text_renames,
)
from alpro.families.alpro.model import TimeSformerEncoder
from alpro.modeling.state_dict_adapter import WRAPPER_PARTS, choose_state_dict, compare, other_model
from alpro.modeling.timesformer import LAYER_NORM_EPS, TimeSformer
from tests.modeling.models import (
    small_bert,
    small_model,
    small_pretraining_model,
    small_prompter,
    small_qa_model,
    small_timesformer,
)

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
    allowed_missing = (*VIT_LEAVES_AT_INIT, *NEW_IN_ALPRO)
    assert not compare(adapted, model, allowed_missing=allowed_missing)


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
    allowed_missing = ("visual_encoder.*", *BERT_LEAVES_AT_INIT, *NEW_IN_ALPRO)
    mismatch = compare(adapted, model, allowed_missing=allowed_missing)
    assert not mismatch, mismatch.describe()


def test_bert_fills_the_headless_flavour() -> None:
    model = small_qa_model()
    bert = BertForPreTraining(small_bert().bert.config).state_dict()
    adapted = adapt_state_dict(from_bert(bert), model.state_dict())
    allowed_missing = ("visual_encoder.*", "classifier.*", *NEW_IN_ALPRO)
    mismatch = compare(adapted, model, allowed_missing=allowed_missing)
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


WRAPPERS = (
    *("module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net."),
    *("module.module.", "_forward_module.model.", "model/", "state_dict/model.module."),
    *("model_state/", "ckpt/net/module.", "_fsdp_wrapped_module._checkpoint_wrapped_module."),
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    "make_model", [small_model, small_qa_model, small_pretraining_model, small_prompter]
)
def test_any_wrapper_is_taken_away_and_no_part_of_a_name(
    wrapper: str, make_model: Callable[[], nn.Module]
) -> None:
    names = list(make_model().state_dict())
    chosen = choose_state_dict([wrapper + name for name in names], roots=ROOTS)
    assert chosen.names == {name: wrapper + name for name in names}
    assert choose_state_dict(names, roots=ROOTS).names == dict(zip(names, names, strict=True))


def test_wrappers_of_submodules_are_taken_away() -> None:
    names = ["visual_encoder._orig_mod.model.norm.bias", "text_encoder.module.bert.x", "temp"]
    chosen = choose_state_dict(names, roots=ROOTS)
    assert list(chosen.names) == ["visual_encoder.model.norm.bias", "text_encoder.bert.x", "temp"]


def test_nested_state_dicts_are_one() -> None:
    names = ["model/visual_encoder/model/norm/bias", "model/temp"]
    chosen = choose_state_dict(names, roots=ROOTS)
    assert list(chosen.names) == ["visual_encoder.model.norm.bias", "temp"]


@pytest.mark.parametrize(
    ("places", "taken"),
    [
        (("model_ema/", "model/"), "model/"),
        (("state_dict_ema/", "state_dict/"), "state_dict/"),
        (("ema_model.", "online."), "online."),
        (("student/", "teacher/"), "teacher/"),
        (("teacher/", "model/"), "model/"),
        (("model_ema/",), "model_ema/"),
        (("optimizer/state/", "model/"), "model/"),
        (("optimizer_states/0/", "optimized/"), "optimized/"),
        (("a/b/", "c/"), "c/"),
        (("first/", "other/"), "first/"),
    ],
)
def test_of_several_state_dicts_one_is_taken_by_rule(places: Sequence[str], taken: str) -> None:
    names = [f"{place}visual_encoder.x" for place in places]
    chosen = choose_state_dict(names, roots=ROOTS)
    assert chosen.wrapper == taken
    assert chosen.names == {"visual_encoder.x": f"{taken}visual_encoder.x"}
    assert set(chosen.others) == {p for p in places if p != taken and "optimizer" not in p}


def test_the_state_dict_with_most_tensors_is_taken() -> None:
    names = ["a.temp", "b.temp", "b.itm_head.bias"]
    assert choose_state_dict(names, roots=ROOTS).wrapper == "b."


def test_unknown_names_belong_to_the_state_dict_around_them() -> None:
    names = ["m/temp", "m/surprise", "m/n_averaged", "m/deeper/x", "surprise"]
    assert list(choose_state_dict(names, roots=ROOTS).names) == ["temp", "surprise"]


def test_names_that_become_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"temp is there twice, as temp and as module\.temp"):
        choose_state_dict(["temp", "module.temp"], roots=ROOTS)


def test_without_known_names_there_is_no_state_dict() -> None:
    assert choose_state_dict(["conv1.weight", "temperature"], roots=ROOTS).names == {}


def test_names_of_our_models_have_no_part_of_a_wrapper() -> None:
    for model in (small_model(), small_qa_model(), small_pretraining_model(), small_prompter()):
        for name in model.state_dict():
            assert name.split(".")[0] in ROOTS
            assert not WRAPPER_PARTS & set(name.split("."))


@pytest.mark.parametrize("saved_as", ["transformers 4", "transformers 5"])
def test_a_vit_of_transformers_gives_the_same_tokens(tmp_path: Path, saved_as: str) -> None:
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                       intermediate_size=32, image_size=16, patch_size=8,
                       hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
                       layer_norm_eps=LAYER_NORM_EPS)  # fmt: skip
    vit = ViTModel(config).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.2)
    state = vit.state_dict()
    if saved_as == "transformers 4":
        vit.save_pretrained(tmp_path)
        state = load_file(tmp_path / "model.safetensors")
        assert "encoder.layer.1.attention.attention.query.weight" in state
    video = TimeSformerEncoder(
        TimeSformer(image_size=16, patch_size=8, num_frames=1, embed_dim=16, depth=2, num_heads=2,
                    mlp_ratio=2, drop_path_rate=0.0)
    ).eval()  # fmt: skip
    model = nn.ModuleDict({"visual_encoder": video})
    mismatch = compare(from_vit(state), model, allowed_missing=VIT_LEAVES_AT_INIT)
    assert not mismatch, mismatch.describe()
    model.load_state_dict(from_vit(state), strict=False)
    frames = torch.randn(3, 1, 3, 16, 16)
    with torch.no_grad():
        expected = vit(frames[:, 0]).last_hidden_state
        torch.testing.assert_close(video(frames), expected, rtol=1e-4, atol=1e-5)


def test_a_timesformer_of_transformers_fills_attention_over_time(tmp_path: Path) -> None:
    config = TimesformerConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                               intermediate_size=32, image_size=16, patch_size=8,
                               num_frames=2)  # fmt: skip
    TimesformerModel(config).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    video = TimeSformerEncoder(
        TimeSformer(image_size=16, patch_size=8, num_frames=2, embed_dim=16, depth=1, num_heads=2,
                    mlp_ratio=2)
    )  # fmt: skip
    renamed = from_vit(state)
    model = nn.ModuleDict({"visual_encoder": video})
    assert not compare(renamed, model, allowed_missing=("*.head.*",))
    here = renamed["visual_encoder.model.blocks.0.temporal_attn.qkv.weight"]
    assert here is state["encoder.layer.0.temporal_attention.attention.qkv.weight"]
    here = renamed["visual_encoder.model.blocks.0.temporal_fc.bias"]
    assert here is state["encoder.layer.0.temporal_dense.bias"]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("visual.transformer.resblocks.0.ln_1.bias", "CLIP"),
        ("vision_model.encoder.layers.0.mlp.fc1.bias", "CLIP"),
        ("base_model.model.q.lora_A.weight", "LoRA"),
        ("state/0/exp_avg_sq", "optimizer"),
    ],
)
def test_well_known_models_are_recognised(name: str, model: str) -> None:
    assert model in str(other_model([name]))
    assert other_model(small_model().state_dict()) is None
