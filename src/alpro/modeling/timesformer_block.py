"""One block of the TimeSformer: attention over time, attention over space, MLP.

B: videos, T: frames, N: patches per frame, D: width, H: heads, d: width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alpro.modeling.attention import Kernel, dot_product_attention, merge_heads

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention over time (patches only) or over space (with the class token)."""

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        drop_rate: float,
        attn_drop_rate: float,
        attention: Kernel,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.kernel: Kernel = attention
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.proj_drop = nn.Dropout(drop_rate)

    def over_time(self, patches: Tensor) -> Tensor:
        """(B, N, T, D) to (B, N, T, D): every patch position attends over its T frames."""
        heads = [x.flatten(0, 1).transpose(1, 2) for x in self._project(patches)]  # (B*N, H, T, d)
        return self._attend(*heads).view_as(patches)

    def over_space(self, cls: Tensor, patches: Tensor) -> Tensor:
        """Every frame attends over the class token and its own patches.

        Args:
            cls: (B, 1, D), shared by the frames of a video, hence projected once.
            patches: (B, N, T, D).

        Returns:
            (B, T, 1+N, D).
        """
        num_videos, _, num_frames, _ = patches.shape
        heads = []
        for x_cls, x in zip(self._project(cls.unsqueeze(1)), self._project(patches), strict=True):
            x_cls = x_cls.transpose(2, 3).expand(-1, num_frames, -1, -1, -1)  # (B, T, H, 1, d)
            x = x.permute(0, 2, 3, 1, 4)  # (B, T, H, N, d)
            heads.append(torch.cat([x_cls, x], dim=3).flatten(0, 1))  # (B*T, H, 1+N, d)
        return self._attend(*heads).unflatten(0, (num_videos, num_frames))

    def _project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(..., D) to three views (..., H, d): queries, keys, values."""
        # Taking q, k and v apart before any permutation lets the backward pass write their
        # gradients into one (..., 3D) tensor with a single copy.
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        dropout_p = self.attn_drop_rate if self.training else 0.0
        attended = merge_heads(
            dot_product_attention(q, k, v, dropout_p=dropout_p, kernel=self.kernel)
        )
        return self.proj_drop(self.proj(attended))  # (batch, tokens, D)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, *, embed_dim: int, hidden_dim: int, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed_dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, embed_dim)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Module):
    """Divided space-time attention; parameter names are those of the released checkpoints.

    `drop_path_rate` is the stochastic depth: temporal attention is dropped per patch, spatial
    attention per frame, the MLP per video.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        mlp_ratio: float,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
        attention: Kernel,
    ) -> None:
        super().__init__()
        self.drop_path_rate = drop_path_rate

        def new_attention() -> Attention:
            return Attention(
                embed_dim=embed_dim,
                num_heads=num_heads,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                attention=attention,
            )

        self.norm1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.attn = new_attention()
        self.temporal_norm1 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.temporal_attn = new_attention()
        self.temporal_fc = nn.Linear(embed_dim, embed_dim)
        self.norm2 = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        hidden_dim = int(embed_dim * mlp_ratio)
        self.mlp = Mlp(embed_dim=embed_dim, hidden_dim=hidden_dim, drop_rate=drop_rate)

    def forward(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, D) and (B, N, T, D) to the same shapes."""
        # Attention over time, over space, then the MLP, which a video keeps or drops as a whole.
        patches = patches + self._temporal(patches)
        for_cls, for_patches = self._spatial(cls, patches)
        cls, patches = cls + for_cls, patches + for_patches
        keep = self._keep(cls, (len(cls), 1, 1))
        cls = cls + self._drop(self.mlp(self.norm2(cls)), keep)
        if keep is not None:
            keep = keep.unsqueeze(-1)  # (B, 1, 1, 1)
        return cls, patches + self._drop(self.mlp(self.norm2(patches)), keep)

    def _temporal(self, patches: Tensor) -> Tensor:
        attended = self.temporal_attn.over_time(self.temporal_norm1(patches))  # (B, N, T, D)
        keep = self._keep(patches, (*patches.shape[:2], 1, 1))
        # The bias of temporal_fc is added to dropped patches too, as in the original.
        return self.temporal_fc(self._drop(attended, keep))

    def _spatial(self, cls: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.attn.over_space(self.norm1(cls), self.norm1(patches))  # (B, T, 1+N, D)
        keep = self._keep(cls, (*attended.shape[:2], 1, 1))
        attended = self._drop(attended, keep)
        return attended[:, :, 0].mean(dim=1, keepdim=True), attended[:, :, 1:].transpose(1, 2)

    def _keep(self, like: Tensor, shape: tuple[int, ...]) -> Tensor | None:
        """Draw factors: 0 with the drop path rate, else 1 / (1 - rate); None for all 1."""
        if not self.training or self.drop_path_rate == 0.0:
            return None
        keep_rate = 1.0 - self.drop_path_rate
        return like.new_empty(shape).bernoulli_(keep_rate).div_(keep_rate)

    @staticmethod
    def _drop(x: Tensor, keep: Tensor | None) -> Tensor:
        return x if keep is None else x * keep
