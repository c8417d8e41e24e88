"""The dual encoder against transformers' CLIP, and the traps of its text tower."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alpro.families.clip_vip.model import ClipVip
from alpro.modeling.contracts import DualEncoder, Matcher
from tests.families.clip_vip.models import VOCAB_SIZE, clip_vip, frames, transformers_clip

START, END = VOCAB_SIZE - 2, VOCAB_SIZE - 1


def test_model_is_a_dual_encoder_without_tokens() -> None:
    model = clip_vip()
    assert isinstance(model, DualEncoder)
    assert not isinstance(model, Matcher)
    video = model.encode_video(frames())
    assert video.tokens.shape == (2, 0, model.embed_dim)
    torch.testing.assert_close(video.embedding.norm(dim=1), torch.ones(2))


@torch.no_grad()
def test_plain_mode_is_the_mean_of_transformers_image_features() -> None:
    model, clip = clip_vip(plain=True), transformers_clip()
    model.clipmodel.load_state_dict(clip.state_dict())
    images = [clip.get_image_features(pixel_values=clips) for clips in frames()]
    # Since 5.0 the features are in an output of several.
    features = torch.stack([getattr(x, "pooler_output", x) for x in images])  # (B, T, E)
    per_frame = functional.normalize(features, dim=-1)
    expected = functional.normalize(per_frame.mean(dim=1), dim=-1)
    embedding = model.encode_video(frames()).embedding
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "plain"])
def test_texts_are_those_of_transformers(attention: str) -> None:
    model, clip = clip_vip(plain=True, attention=attention), transformers_clip()
    model.clipmodel.load_state_dict(clip.state_dict())
    ids = torch.tensor([[START, 3, 4, END, END], [START, 5, END, END, END]])
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    output = clip.get_text_features(input_ids=ids, attention_mask=mask)
    features = functional.normalize(getattr(output, "pooler_output", output), dim=-1)
    text = model.encode_text(ids, mask)
    torch.testing.assert_close(text.embedding, features, atol=1e-5, rtol=0)
    assert text.tokens.shape == (2, 5, 0)
    assert text.mask is mask


def embed(model: ClipVip, ids: list[int], mask: list[int] | None = None) -> Tensor:
    ones = [1] * len(ids)
    return model.encode_text(torch.tensor([ids]), torch.tensor([mask or ones])).embedding


@torch.no_grad()
def test_the_first_token_of_the_largest_id_represents_a_text() -> None:
    model = clip_vip()
    with_end = embed(model, [START, 3, 4, END])
    # What comes behind it is unseen, masked or not: padding by the end of text, by 0, or words.
    for rest in ([END, END], [0, 0], [7, END]):
        for mask in ([1] * 6, [1] * 4 + [0] * 2):
            torch.testing.assert_close(embed(model, [START, 3, 4, END, *rest], mask), with_end)
    # Without an end of text the largest id, here the start, which sees nothing else.
    torch.testing.assert_close(embed(model, [START, 3, 4]), embed(model, [START, 8]))
    torch.testing.assert_close(embed(model, [3, 9, 9, 4]), embed(model, [3, 9]))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "plain"])
def test_masked_words_before_the_end_are_unseen(attention: str) -> None:
    model = clip_vip(attention=attention)
    mask = [1, 0, 1, 1]
    masked = embed(model, [START, 3, 4, END], mask)
    torch.testing.assert_close(embed(model, [START, 7, 4, END], mask), masked)
    assert not torch.allclose(embed(model, [START, 3, 4, END]), masked, atol=1e-3)


def test_scale_is_clamped_and_divides_as_temperature() -> None:
    model = clip_vip(logit_scale_init_value=math.log(50))
    assert model.temperature().item() == pytest.approx(1 / 50)
    assert model.logit_scale is dict(model.named_parameters())["clipmodel.logit_scale"]
    for value, clamped in ((-1.0, 0.0), (6.0, math.log(200)), (3.0, 3.0)):
        model.logit_scale.data.fill_(value)
        model.clamp_temperature()
        assert model.logit_scale.item() == pytest.approx(clamped)


def test_every_parameter_is_trained() -> None:
    model = clip_vip()
    ids = torch.tensor([[START, 3, END], [START, 4, END]])
    text = model.encode_text(ids, torch.ones_like(ids)).embedding
    scores = text @ model.encode_video(frames()).embedding.t() / model.temperature()
    functional.cross_entropy(scores, torch.arange(2)).backward()
    without = [name for name, x in model.named_parameters() if x.grad is None or not x.grad.any()]
    # Their bias shifts all scores of a query alike.
    assert [name for name in without if not name.endswith("k_proj.bias")] == []


def test_variants_lack_the_parameters_of_the_video_proxies() -> None:
    both = {f"clipmodel.vision_model.embeddings.{x}" for x in ("added_cls", "temporal_embedding")}
    names = clip_vip().state_dict().keys()
    assert both <= names
    assert names - clip_vip(plain=True).state_dict().keys() == both
    neither = clip_vip(if_use_temporal_embed=False, add_cls_num=0)
    assert names - neither.state_dict().keys() == both
    assert neither.encode_video(frames()).embedding.shape == (2, 20)


def test_initial_weights_follow_the_rule_of_clip() -> None:
    tower = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    sizes = {f"{name}_{key}": size for name in ("vision", "text") for key, size in tower.items()}
    model = clip_vip(**sizes, vocab_size=500, logit_scale_init_value=4.6)
    width_scale, depth_scale = 64**-0.5, (2 * 2) ** -0.5
    deviations = {
        "embeddings.token_embedding.weight": 0.02,
        "embeddings.patch_embedding.weight": 0.02,
        "embeddings.position_embedding.weight": 0.02,
        "embeddings.class_embedding": width_scale,
        "embeddings.added_cls": 1.0,
        "q_proj.weight": width_scale * depth_scale,
        "k_proj.weight": width_scale * depth_scale,
        "v_proj.weight": width_scale * depth_scale,
        "out_proj.weight": width_scale,
        "fc1.weight": (2 * 64) ** -0.5,
        "fc2.weight": width_scale * depth_scale,
        "_projection.weight": width_scale,
    }
    for name, value in model.state_dict().items():
        expected = [x for ending, x in deviations.items() if name.endswith(ending)]
        if expected:
            assert value.std().item() == pytest.approx(expected[0], rel=0.3), name
        elif name.endswith("logit_scale"):
            assert value.item() == pytest.approx(4.6)
        else:
            constant = (
                1.0 if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")) else 0.0
            )
            assert (value == constant).all(), name
