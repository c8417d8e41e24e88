"""CLIP-ViP (Xue et al., ICLR 2023, section 3.3): a dual encoder of videos and texts on top of CLIP.

B: batch, T: frames, S: image side, L: text tokens or patches per frame, M: proxies, the class token
included, N: tokens, M + T * L, D: width, H: heads, d: width of a head, E: width of the embeddings.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import CLIPModel
from transformers.models.clip.modeling_clip import CLIPEncoderLayer, CLIPVisionModel

from alpro.modeling.attention import Kernel, dot_product_attention, merge_heads
from alpro.modeling.contracts import TextFeatures, VideoFeatures

MAX_LOGIT_SCALE = math.log(200)


class ClipVip(nn.Module):
    """The dual encoder; parameters have transformers' names below ``clipmodel.``.

    Args:
        clip: transformers' CLIP; a `VipVisionModel` takes the place of its vision tower.
        plain: encode each frame by itself, and average.
    """

    def __init__(self, clip: CLIPModel, *, plain: bool) -> None:
        super().__init__()
        self.clipmodel = clip
        self.embed_dim = clip.visual_projection.out_features
        self.plain = plain

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """(B, T, 3, S, S) normalised frames to unit vectors (B, E), without tokens."""
        clips = frames.flatten(0, 1).unsqueeze(1) if self.plain else frames
        pooled = self.clipmodel.vision_model(clips)  # (B or B*T, D)
        embedding = _unit(self.clipmodel.visual_projection(pooled))
        if self.plain:
            embedding = _unit(embedding.unflatten(0, frames.shape[:2]).mean(dim=1))  # (B, E)
        return VideoFeatures(embedding.new_zeros(len(frames), 0, self.embed_dim), embedding)

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """(B, L) ids and (B, L) mask of 0/1 to unit vectors (B, E), with tokens of width 0.

        The token of the largest id represents the text, the first of several: the end of text.
        """
        # transformers pools at the tokenizer's end of text, which a text may lack.
        hidden = self.clipmodel.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
        rows = torch.arange(len(ids), device=ids.device)
        embedding = _unit(self.clipmodel.text_projection(hidden[rows, ids.argmax(dim=1)]))
        return TextFeatures(embedding.new_zeros(*ids.shape, 0), mask, embedding)

    @property
    def logit_scale(self) -> Tensor:
        """Trained log of the scale of similarities, ()."""
        return self.clipmodel.logit_scale

    def temperature(self) -> Tensor:
        """Scalar that divides cosine similarities."""
        return (-self.logit_scale).exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Clamp the scale of similarities to [1, 200], in place."""
        self.logit_scale.clamp_(0, MAX_LOGIT_SCALE)


def _unit(x: Tensor) -> Tensor:
    """(B, E) to float32 vectors of length 1."""
    return functional.normalize(x.float(), dim=-1)


class VipVisionModel(nn.Module):
    """CLIP's vision tower over all frames at once; see `proxy_guided_attention`.

    Args:
        clip: transformers' tower, whose parameters are taken over under their names.
        num_proxies: proxies besides the class token; with 0 and one frame this is CLIP.
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
        width, self.num_heads = clip.config.hidden_size, clip.config.num_attention_heads
        self.image_size = clip.config.image_size
        self.num_proxies = 1 + num_proxies  # M
        self.gradient_checkpointing = gradient_checkpointing
        self.kernel: Kernel = attention
        # CLIP's parameters, then those of the proxies and of time.
        self.embeddings, self.encoder = clip.embeddings, clip.encoder
        self.pre_layrnorm, self.post_layernorm = clip.pre_layrnorm, clip.post_layernorm
        added_cls = nn.Parameter(torch.randn(num_proxies, width)) if num_proxies else None
        time = None if temporal_size is None else nn.Parameter(torch.zeros(1, temporal_size, width))
        self.embeddings.register_parameter("added_cls", added_cls)
        self.embeddings.register_parameter("temporal_embedding", time)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to the normalised class token (B, D).

        Raises:
            ValueError: S differs from the model's size.
        """
        if frames.shape[2:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"the vision tower was built for frames of (3, {self.image_size}, "
                f"{self.image_size}), but was given {tuple(frames.shape[2:])}"
            )
        x = self.pre_layrnorm(self.embed(frames))  # (B, N, D)
        layers: Any = self.encoder.layers
        for index, layer in enumerate(layers):
            # Nothing reads the other tokens of the last layer.
            num_read = 1 if index == len(layers) - 1 else x.size(1)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(self._layer, layer, x, frames.size(1), num_read, use_reentrant=False)
            else:
                x = self._layer(layer, x, frames.size(1), num_read)
        return self.post_layernorm(x[:, 0])

    def embed(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) to (B, N, D): proxies, then row-major patches frame by frame."""
        parts: Any = self.embeddings
        position = parts.position_embedding.weight  # (1+L, D)
        # All proxies share the position of the class token, and none has a time.
        proxies = parts.class_embedding.unsqueeze(0)
        if parts.added_cls is not None:
            proxies = torch.cat([proxies, parts.added_cls])  # (M, D)
        proxies = (proxies + position[:1]).expand(len(frames), -1, -1)  # (B, M, D)
        pixels = frames.flatten(0, 1).to(position.dtype)  # (B*T, 3, S, S)
        patches = parts.patch_embedding(pixels).flatten(2).transpose(1, 2) + position[1:]
        patches = patches.unflatten(0, frames.shape[:2])  # (B, T, L, D)
        if parts.temporal_embedding is not None:
            time = resize_temporal_embedding(parts.temporal_embedding, frames.size(1))
            patches = patches + time.unsqueeze(2)  # (1, T, 1, D)
        return torch.cat([proxies, patches.flatten(1, 2)], dim=1)

    def _layer(self, layer: CLIPEncoderLayer, x: Tensor, num_frames: int, num_read: int) -> Tensor:
        """(B, N, D) to (B, num_read, D)."""
        attention, normed = layer.self_attn, layer.layer_norm1(x)
        projected = (
            attention.q_proj(normed[:, :num_read]),
            attention.k_proj(normed),
            attention.v_proj(normed),
        )
        heads = (part.unflatten(-1, (self.num_heads, -1)) for part in projected)  # (B, N, H, d)
        attended = proxy_guided_attention(
            *heads, num_proxies=self.num_proxies, num_frames=num_frames, kernel=self.kernel
        )
        x = x[:, :num_read] + attention.out_proj(attended)
        return x + layer.mlp(layer.layer_norm2(x))


def proxy_guided_attention(
    q: Tensor, k: Tensor, v: Tensor, *, num_proxies: int, num_frames: int, kernel: Kernel = "auto"
) -> Tensor:
    """Attention of proxies over all tokens, and of patches over proxies and their own frame.

    No mask and no (N, N) scores are made: a head has M * N + T * L * (M+L) scores.

    Args:
        q: (B, N, H, d), proxies first, then the patches frame by frame; or the first few proxies.
        k: (B, N, H, d).
        v: (B, N, H, d).
        num_proxies: number M of proxies.
        num_frames: number T of frames.
        kernel: kernel of `dot_product_attention`.

    Returns:
        (B, N, D), or as many as there are queries.
    """
    # Proxies, over everything.
    over_all = [x.transpose(1, 2) for x in (q[:, :num_proxies], k, v)]  # (B, H, M or N, d)
    proxies = merge_heads(dot_product_attention(*over_all, kernel=kernel))  # (B, M, D)
    if q.size(1) <= num_proxies:
        return proxies
    # Patches: each frame is a batch row of its own, whose keys begin with the proxies.
    q, *frames = (x[:, num_proxies:].unflatten(1, (num_frames, -1)) for x in (q, k, v))
    shared = (x[:, None, :num_proxies].expand(-1, num_frames, -1, -1, -1) for x in (k, v))
    k, v = (torch.cat(pair, dim=2) for pair in zip(shared, frames, strict=True))
    per_frame = [x.flatten(0, 1).transpose(1, 2) for x in (q, k, v)]  # (B*T, H, L or M+L, d)
    patches = merge_heads(dot_product_attention(*per_frame, kernel=kernel))  # (B*T, L, D)
    return torch.cat([proxies, patches.unflatten(0, (-1, num_frames)).flatten(1, 2)], dim=1)


def resize_temporal_embedding(embedding: Tensor, num_frames: int) -> Tensor:
    """(1, rows, D) to (1, num_frames, D), linearly."""
    if embedding.size(1) == num_frames:
        return embedding
    return functional.interpolate(
        embedding.transpose(1, 2), size=num_frames, mode="linear", align_corners=False
    ).transpose(1, 2)
