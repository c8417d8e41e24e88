from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from alpro.families.alpro.model import AlproForRetrieval, TimeSformerEncoder
from alpro.losses import matching_loss
from alpro.modeling.contracts import concatenated
from tests.losses.one_clip import contrastive_loss
from tests.modeling.models import (
    NUM_PATCHES,
    WIDTH,
    random_frames,
    random_text,
    small_bert,
    small_model,
    small_timesformer,
)


@torch.no_grad()
def test_shapes_and_unit_embeddings() -> None:
    model = small_model().eval()
    video, text = model.encode_video(random_frames()), model.encode_text(*random_text(length=5))
    assert video.tokens.shape == (2, 1 + NUM_PATCHES, WIDTH)
    assert text.tokens.shape == (2, 5, WIDTH)
    torch.testing.assert_close(video.embedding.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(text.embedding.norm(dim=1), torch.ones(2))
    fused = model.fuse(text, video)
    assert fused.shape == (2, 5 + 1 + NUM_PATCHES, WIDTH)
    torch.testing.assert_close(model.fuse_first(text, video), fused[:, 0])
    logits = model.match(text, video)
    torch.testing.assert_close(logits, model.itm_head(fused[:, 0]))
    assert video.embedding.shape == text.embedding.shape == (2, model.embed_dim)


@torch.no_grad()
def test_embeddings_are_projections_of_the_first_token() -> None:
    model = small_model().eval()
    video, text = model.encode_video(random_frames()), model.encode_text(*random_text())
    by_hand = functional.normalize(model.vision_proj(video.tokens[:, 0]), dim=-1)
    torch.testing.assert_close(video.embedding, by_hand)
    by_hand = functional.normalize(model.text_proj(text.tokens[:, 0]), dim=-1)
    torch.testing.assert_close(text.embedding, by_hand)


@torch.no_grad()
def test_a_region_is_the_mean_of_its_patches() -> None:
    model, frames = small_model().eval(), random_frames()
    side = int(NUM_PATCHES**0.5)
    region = torch.zeros(2, side, side, dtype=torch.bool)
    region[0, 0, 1] = region[1, 1, 0] = region[1, 1, 1] = True
    by_class_token = model.encode_video(frames).embedding
    assert torch.equal(model.encode_video(frames, region=region).embedding, by_class_token)
    model.pooling = "mean"
    seen = model.encode_video(frames, region=region)
    patches = seen.tokens[:, 1:]
    means = torch.stack([patches[0, 1], patches[1, side : side + 2].mean(dim=0)])
    expected = functional.normalize(model.vision_proj(means), dim=-1)
    torch.testing.assert_close(seen.embedding, expected)
    everywhere = model.encode_video(frames, region=torch.ones_like(region)).embedding
    torch.testing.assert_close(everywhere, model.encode_video(frames).embedding)


@torch.no_grad()
def test_score_of_a_pair_does_not_depend_on_its_batch() -> None:
    model = small_model().eval()
    frames, (ids, mask) = random_frames(3), random_text(3)
    video, text = model.encode_video(frames), model.encode_text(ids, mask)
    rows = torch.tensor([2, 0])
    together = model.match(text.select(rows), video.select(rows))
    alone = model.match(model.encode_text(ids[2:], mask[2:]), model.encode_video(frames[2:]))
    torch.testing.assert_close(together[:1], alone)


@torch.no_grad()
def test_concatenated_texts_are_those_of_one_batch() -> None:
    model = small_model().eval()
    ids, mask = random_text(3)
    parts = [model.encode_text(ids[rows], mask[rows]) for rows in (slice(1), slice(1, 3))]
    for ours, expected in zip(concatenated(parts), model.encode_text(ids, mask), strict=True):
        torch.testing.assert_close(ours, expected)


def test_every_trainable_parameter_receives_a_gradient() -> None:
    model = small_model()
    video, text = model.encode_video(random_frames()), model.encode_text(*random_text())
    loss = contrastive_loss(
        video.embedding,
        text.embedding,
        all_video=video.embedding,
        all_text=text.embedding,
        temperature=model.temp,
    )
    (loss + matching_loss(model.match(text, video), 1)).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


@torch.no_grad()
def test_pooling_mean_takes_the_patches() -> None:
    encoder = TimeSformerEncoder(small_timesformer())
    model = AlproForRetrieval(encoder, small_bert(), embed_dim=8, pooling="mean").eval()
    video = model.encode_video(random_frames())
    projected = model.vision_proj(video.tokens[:, 1:].mean(1))
    torch.testing.assert_close(video.embedding, projected / projected.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.001), (0.3, 0.3), (2.0, 0.5)])
def test_temperature_is_clamped(value: float, expected: float) -> None:
    model = small_model()
    model.temp.data.fill_(value)
    model.clamp_temperature()
    assert model.temp.item() == pytest.approx(expected)
    assert model.temp.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("whole_model", [True, False])
def test_runs_in_bfloat16(whole_model: bool) -> None:
    model = small_model().eval()
    frames, (ids, mask) = random_frames(), random_text()
    expected = model.match(model.encode_text(ids, mask), model.encode_video(frames))
    if whole_model:
        model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=not whole_model):
        video, text = model.encode_video(frames), model.encode_text(ids, mask)
        logits = model.match(text, video)
    assert video.embedding.dtype == torch.float32
    probability = logits.float().softmax(1)
    torch.testing.assert_close(probability, expected.softmax(1), atol=0.02, rtol=0.02)


def test_encoders_of_different_widths_are_refused() -> None:
    encoder = TimeSformerEncoder(small_timesformer(embed_dim=8))
    with pytest.raises(ValueError, match="the video encoder has 8 and the text encoder 16"):
        AlproForRetrieval(encoder, small_bert())
