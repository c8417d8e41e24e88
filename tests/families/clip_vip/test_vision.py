"""Proxy-guided attention against a dense mask, and what the tower stores and computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from alpro.families.clip_vip.model import ClipVip, proxy_guided_attention, resize_temporal_embedding
from alpro.modeling.attention import Kernel
from tests.families.clip_vip.models import IMAGE_SIZE, clip_vip, frames

M, T, L, H, D = 3, 4, 5, 2, 6  # proxies, frames, patches, heads, width of a head


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, num_proxies: int, num_frames: int
) -> Tensor:
    """The same with one mask over all pairs of tokens."""
    num_patches = (q.size(1) - num_proxies) // num_frames
    frame = torch.arange(num_frames).repeat_interleave(num_patches)
    frame = torch.cat([torch.full((num_proxies,), -1), frame])  # (N,)
    seen = (frame[:, None] == frame) | (frame[:, None] < 0) | (frame < 0)  # (N, N)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    return attended.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("kernel", ["sdpa", "plain"])
def test_proxy_guided_attention_is_that_of_a_dense_mask(kernel: Kernel) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, M + T * L, H, D, dtype=torch.float64)
    sizes = {"num_proxies": M, "num_frames": T}
    expected = dense_attention(q, k, v, **sizes)
    torch.testing.assert_close(proxy_guided_attention(q, k, v, **sizes, kernel=kernel), expected)
    first = proxy_guided_attention(q[:, :1], k, v, **sizes, kernel=kernel)
    torch.testing.assert_close(first, expected[:, :1])


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = result if isinstance(result, tuple | list) else (result,)
        sizes = [part.numel() for part in parts if isinstance(part, Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return result


@pytest.mark.parametrize("kernel", ["sdpa", "plain"])
def test_no_tensor_has_as_many_numbers_as_pairs_of_patches(kernel: Kernel) -> None:
    model = clip_vip(patch_size=4, attention=kernel)
    num_frames, num_patches = 8, (IMAGE_SIZE // 4) ** 2
    num_pairs = (num_frames * num_patches) ** 2
    with LargestTensor() as watch:
        model.encode_video(frames(num_frames=num_frames)[:1]).embedding[0, 0].backward()
    assert 0 < watch.numel < num_pairs
    # A dense mask is seen.
    q = torch.randn(1, 4 + num_frames * num_patches, 1, 2)
    with LargestTensor() as watch:
        dense_attention(q, q, q, num_proxies=4, num_frames=num_frames)
    assert watch.numel >= num_pairs


def gradients(model: ClipVip) -> dict[str, Tensor]:
    embedding = model.encode_video(frames()).embedding
    (embedding * torch.arange(embedding.size(1))).sum().backward()
    named = model.named_parameters()
    return {name: x.grad for name, x in named if x.grad is not None}


@pytest.mark.parametrize("plain", [False, True])
def test_checkpointing_computes_layers_twice_and_gives_the_same_gradients(plain: bool) -> None:
    counts, all_gradients = [], []
    for gradient_checkpointing in (False, True):
        model = clip_vip(plain=plain, gradient_checkpointing=gradient_checkpointing).train()
        calls: list[int] = []
        for layer in model.clipmodel.vision_model.encoder.layers:
            layer.layer_norm1.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        all_gradients.append(gradients(model))
        counts.append(len(calls))
    assert counts == [2, 4]
    stored, recomputed = all_gradients
    assert stored.keys() == recomputed.keys()
    for name, gradient in stored.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def test_the_last_layer_computes_the_class_token_alone() -> None:
    model = clip_vip()
    shapes: list[torch.Size] = []
    for layer in model.clipmodel.vision_model.encoder.layers:
        layer.mlp.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    model.encode_video(frames())
    assert shapes == [(2, 4 + 3 * 4, 24), (2, 1, 24)]


@pytest.mark.parametrize(("side", "channels"), [(48, 3), (16, 3), (32, 1)])
def test_frames_of_another_size_are_refused(side: int, channels: int) -> None:
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        clip_vip().encode_video(torch.zeros(1, 2, channels, side, side))


def test_other_numbers_of_frames_interpolate_the_time_embedding() -> None:
    rows = torch.tensor([0.0, 10.0, 20.0, 40.0]).view(1, 4, 1)
    assert resize_temporal_embedding(rows, 1).flatten().tolist() == [15.0]
    assert resize_temporal_embedding(rows, 2).flatten().tolist() == [5.0, 30.0]
    assert resize_temporal_embedding(rows, 4) is rows
    eight = resize_temporal_embedding(rows, 8).flatten().tolist()
    assert eight == [0.0, 2.5, 7.5, 12.5, 17.5, 25.0, 35.0, 40.0]


def test_spread_of_random_embeddings() -> None:
    for plain in (False, True):
        model = clip_vip(random_embed_std=(0.5, 3.0, 7.0), temporal_size=64, plain=plain)
        parts = dict(model.clipmodel.vision_model.embeddings.named_parameters())
        spreads = {"patch_embedding.weight": 0.5, "position_embedding.weight": 3.0}
        spreads |= {} if plain else {"temporal_embedding": 7.0}
        for name, spread in spreads.items():
            assert float(parts[name].detach().std()) == pytest.approx(spread, rel=0.2)
    parts = dict(clip_vip().clipmodel.vision_model.embeddings.named_parameters())
    assert not parts["temporal_embedding"].any()
