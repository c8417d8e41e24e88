from __future__ import annotations

import math
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from alpro.configs.fields import fields_of
from alpro.datasets.transforms.normalize import Normalize
from alpro.evaluation.encoding import AGGREGATIONS, aggregate_clips, encode_clips, score_clips
from alpro.modeling.contracts import VideoFeatures
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import EMBED_DIM, IMAGE_SIZE, MEAN, NUM_FRAMES, STD, WIDTH, make_model


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [1.0, 2.0]),
        ("max", [3.0, 2.0]),
        ("lse", [math.log(math.exp(-1) + math.exp(3)), 2 + math.log(2)]),
    ],
)
def test_scores_of_two_clips_by_hand(how: str, expected: list[float]) -> None:
    scores = torch.tensor([[-1.0, 2.0], [3.0, 2.0]])
    assert aggregate_clips(scores, how=how, dim=0).tolist() == pytest.approx(expected)
    assert aggregate_clips(scores.t(), how=how, dim=1).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_the_scores_of_one_clip_are_left_alone(how: str) -> None:
    scores = 30 * torch.randn(4, 1, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(aggregate_clips(scores, how=how, dim=1), scores[:, 0])


def test_the_config_knows_the_aggregations() -> None:
    assert set(fields_of(RetrievalConfig)["score_agg_func"].rule.choices) == set(AGGREGATIONS)


@torch.inference_mode()
def test_clips_are_encoded_one_after_the_other() -> None:
    model = make_model().eval()
    normalize = Normalize(MEAN, STD)
    shape = (2, 3, NUM_FRAMES, 3, IMAGE_SIZE, IMAGE_SIZE)  # 2 videos, 3 clips
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    with mock.patch.object(model, "encode_video", wraps=model.encode_video) as encode:
        encoded = encode_clips(model, frames, normalize=normalize)
    assert [call.args[0].shape for call in encode.call_args_list] == [(2, *shape[2:])] * 3
    assert encoded.tokens.shape == (2, 3, 5, WIDTH)
    assert encoded.embedding.shape == (2, 3, EMBED_DIM)
    for clip in range(3):
        alone = model.encode_video(normalize(frames[:, clip]))
        torch.testing.assert_close(encoded.tokens[:, clip], alone.tokens)
        torch.testing.assert_close(encoded.embedding[:, clip], alone.embedding)


class MaskedEncoder(nn.Module):
    """Tokens, embedding and mask that show which clip they are of."""

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        means = frames.flatten(1).mean(dim=1)  # (B,)
        return VideoFeatures(means[:, None, None], means[:, None], means[:, None] > 3)


@pytest.mark.parametrize("size", [0, 2])
def test_training_encodes_the_clips_of_all_videos_as_one_batch(size: int) -> None:
    frames = torch.arange(6, dtype=torch.uint8).reshape(3, 2, 1, 1, 1, 1).expand(3, 2, 2, 3, 4, 4)
    model: Any = MaskedEncoder()
    with mock.patch.object(model, "encode_video", wraps=model.encode_video) as encode:
        video = encode_clips(model, frames, normalize=Tensor.float, grad_cache_size=size)
    assert [len(call.args[0]) for call in encode.call_args_list] == ([2] * 3 if size else [6])
    assert video.embedding.squeeze(2).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert video.tokens.shape == (3, 2, 1, 1)
    assert video.mask is not None
    assert video.mask.squeeze(2).tolist() == [[False, False], [False, False], [True, True]]
    with torch.no_grad():
        evaluated = encode_clips(model, frames, normalize=Tensor.float)
    assert all(torch.equal(*parts) for parts in zip(video, evaluated, strict=True))  # type: ignore[arg-type]


def test_each_clip_is_scored_by_itself() -> None:
    video = VideoFeatures(torch.arange(12.0).reshape(2, 3, 2, 1), torch.zeros(2, 3, 1))

    def score(clip: VideoFeatures) -> Tensor:
        assert clip.embedding.shape == (2, 1)
        return clip.tokens[:, :, 0].bfloat16()  # (2, 2)

    scores = score_clips(score, video, how="mean")
    assert scores.dtype == torch.float32
    assert scores.tolist() == [[2, 3], [8, 9]]
