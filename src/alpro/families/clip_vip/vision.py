"""Vision tower of CLIP-ViP (Xue et al., ICLR 2023, section 3.3).

B: batch, T: frames, S: image side, P: patch side, L: patches per frame, M: proxies, with the class
token, N: tokens, M + T * L, D: width, H: heads, d: width of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.models.clip.modeling_clip import (
    CLIPEncoderLayer,
    CLIPVisionEmbeddings,
    CLIPVisionModel,
)

from alpro.modeling.attention import Kernel, dot_product_attention, merge_heads


class VipEmbeddings(nn.Module):
    """Class token, further proxies, and the patches of all frames.

    Args:
        clip: transformers' embeddings, whose parameters are taken over.
        num_proxies: proxies besides the class token.
        temporal_size: rows of the time embedding; None for none.
    """

    def __init__(
        self, clip: CLIPVisionEmbeddings, *, num_proxies: int, temporal_size: int | None
    ) -> None:
        super().__init__()
        # CLIP's own.
        self.class_embedding = clip.class_embedding
        self.patch_embedding = clip.patch_embedding
        self.position_embedding = clip.position_embedding
        self.image_size = cast(int, clip.image_size)
        # Those of the proxies and of time.
        width = len(clip.class_embedding)
        self.added_cls = nn.Parameter(torch.randn(num_proxies, width))
        self.temporal_embedding = (
            None if temporal_size is None else nn.Parameter(torch.zeros(1, temporal_size, width))
        )

    @property
    def num_proxies(self) -> int:
        """Number M of proxies, with the class token."""
        return 1 + len(self.added_cls)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) to (B, N, D): proxies, then row-major patches frame by frame.

        Raises:
            ValueError: S differs from the model's size.
        """
        self._check_shape(frames)
        batch_size, num_frames = frames.shape[:2]
        position = self.position_embedding.weight  # (1+L, D)
        # All proxies share the position of the class token.
        proxies = torch.cat([self.class_embedding.unsqueeze(0), self.added_cls]) + position[:1]
        # Patches have a place in the frame and, if wanted, in time.
        pixels = frames.flatten(0, 1).to(position.dtype)  # (B*T, 3, S, S)
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)  # (B*T, L, D)
        patches = patches.unflatten(0, (batch_size, num_frames)) + position[1:]  # (B, T, L, D)
        if self.temporal_embedding is not None:
            time = resize_temporal_embedding(self.temporal_embedding, num_frames)  # (1, T, D)
            patches = patches + time.unsqueeze(2)
        return torch.cat([proxies.expand(batch_size, -1, -1), patches.flatten(1, 2)], dim=1)

    def _check_shape(self, frames: Tensor) -> None:
        # Other sizes may have as many patches.
        sides, expected = tuple(frames.shape[-2:]), (self.image_size, self.image_size)
        if sides != expected:
            raise ValueError(f"the vision tower was built for frames of {expected}, not of {sides}")


def resize_temporal_embedding(embedding: Tensor, num_frames: int) -> Tensor:
    """(1, rows, D) to (1, num_frames, D), linearly."""
    if embedding.size(1) == num_frames:
        return embedding
    return functional.interpolate(
        embedding.transpose(1, 2), size=num_frames, mode="linear", align_corners=False
    ).transpose(1, 2)


class VipVisionModel(nn.Module):
    """CLIP's vision tower over all frames at once, under transformers' names.

    Proxies attend over everything, the patches of a frame over the proxies and that frame. The
    scores thus take T * L * (M+L) + M * N numbers per head and layer in place of N * N.

    Args:
        clip: transformers' vision tower, whose parameters are taken over.
        num_proxies: proxies besides the class token.
        temporal_size: rows of the time embedding; None for none.
        gradient_checkpointing: recompute each layer in the backward pass instead of storing it.
        attention: kernel of `dot_product_attention`.
    """

    def __init__(
        self,
        clip: CLIPVisionModel,
        *,
        num_proxies: int,
        temporal_size: int | None,
        gradient_checkpointing: bool = False,
        attention: Kernel = "auto",
    ) -> None:
        super().__init__()
        self.embeddings = VipEmbeddings(
            clip.embeddings, num_proxies=num_proxies, temporal_size=temporal_size
        )
        self.pre_layrnorm = clip.pre_layrnorm
        self.encoder = clip.encoder
        self.post_layernorm = clip.post_layernorm
        self.num_heads = clip.config.num_attention_heads
        self.gradient_checkpointing = gradient_checkpointing
        self.kernel: Kernel = attention

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to the normalised class token (B, D)."""
        x = self.pre_layrnorm(self.embeddings(frames))  # (B, N, D)
        *layers, last = self.encoder.layers
        for layer in layers:
            x = self._run(self._layer, layer, x, num_frames=frames.size(1))
        x = self._run(self._last_layer, last, x)  # (B, 1, D)
        return self.post_layernorm(x[:, 0])

    def _run(self, function: Callable[..., Tensor], *arguments: Any, **options: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False, **options)
        return function(*arguments, **options)

    def _layer(self, layer: CLIPEncoderLayer, x: Tensor, *, num_frames: int) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        attention, normed = layer.self_attn, layer.layer_norm1(x)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        q, k, v = (self._heads(project(normed)) for project in projections)  # (B, N, H, d)
        attended = proxy_guided_attention(
            q, k, v, num_proxies=self.embeddings.num_proxies, num_frames=num_frames,
            kernel=self.kernel,
        )  # fmt: skip
        x = x + attention.out_proj(attended)
        return x + layer.mlp(layer.layer_norm2(x))

    def _last_layer(self, layer: CLIPEncoderLayer, x: Tensor) -> Tensor:
        """(B, N, D) to (B, 1, D): nothing reads the other tokens."""
        attention, normed = layer.self_attn, layer.layer_norm1(x)
        q = self._heads(attention.q_proj(normed[:, :1])).transpose(1, 2)  # (B, H, 1, d)
        k, v = (
            self._heads(project(normed)).transpose(1, 2)  # (B, H, N, d)
            for project in (attention.k_proj, attention.v_proj)
        )
        attended = merge_heads(dot_product_attention(q, k, v, kernel=self.kernel))  # (B, 1, D)
        x = x[:, :1] + attention.out_proj(attended)
        return x + layer.mlp(layer.layer_norm2(x))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, N, H, d)."""
        return x.unflatten(-1, (self.num_heads, -1))


def proxy_guided_attention(
    q: Tensor, k: Tensor, v: Tensor, *, num_proxies: int, num_frames: int, kernel: Kernel = "auto"
) -> Tensor:
    """Attention of proxies over all tokens, and of patches over proxies and their own frame.

    Args:
        q: (B, N, H, d), proxies first, then the patches frame by frame.
        k: (B, N, H, d).
        v: (B, N, H, d).
        num_proxies: number M of proxies.
        num_frames: number T of frames.
        kernel: kernel of `dot_product_attention`.

    Returns:
        (B, N, D).
    """
    # Proxies, over everything.
    over_all = [x.transpose(1, 2) for x in (q[:, :num_proxies], k, v)]  # (B, H, M or N, d)
    proxies = merge_heads(dot_product_attention(*over_all, kernel=kernel))  # (B, M, D)
    # Patches: each frame is a batch row of its own, whose keys begin with the proxies.
    own = q[:, num_proxies:].unflatten(1, (num_frames, -1)).flatten(0, 1)  # (B*T, L, H, d)
    keys, values = (_with_proxies(x, num_proxies, num_frames) for x in (k, v))  # (B*T, M+L, H, d)
    per_frame = [x.transpose(1, 2) for x in (own, keys, values)]
    patches = merge_heads(dot_product_attention(*per_frame, kernel=kernel))  # (B*T, L, D)
    patches = patches.unflatten(0, (-1, num_frames)).flatten(1, 2)  # (B, T*L, D)
    return torch.cat([proxies, patches], dim=1)


def _with_proxies(x: Tensor, num_proxies: int, num_frames: int) -> Tensor:
    """(B, N, H, d) to (B*T, M+L, H, d): the proxies and one frame's patches."""
    proxies = x[:, None, :num_proxies].expand(-1, num_frames, -1, -1, -1)  # (B, T, M, H, d)
    patches = x[:, num_proxies:].unflatten(1, (num_frames, -1))  # (B, T, L, H, d)
    return torch.cat([proxies, patches], dim=2).flatten(0, 1)
