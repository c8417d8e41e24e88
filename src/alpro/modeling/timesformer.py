"""TimeSformer with divided space-time attention (Bertasius et al., ICML 2021), as ALPRO uses it.

B: videos, T: frames, S: image side, P: patch side, N: patches per frame, D: width, H: heads,
d: width of a head.

Class token (B, 1, D) and patches (B, N, T, D) are separate tensors: unlike the original's sequence
[cls; patches], both attentions start from views.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.init import normal_
from torch.utils.checkpoint import checkpoint

from alpro.modeling.attention import Kernel, dot_product_attention, merge_heads
from alpro.modeling.state_dict_adapter import resize_time_embed

LAYER_NORM_EPS = 1e-6
NUM_KINETICS_CLASSES = 400  # rows of the unused `head` in the released checkpoints


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


class PatchEmbed(nn.Module):
    """Linear projection of each P x P patch; the weight has the shape of a convolution's."""

    def __init__(self, *, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) to (B, N, T, D), patches in row-major order."""
        p = self.patch_size
        grid = frames.unflatten(-1, (-1, p)).unflatten(-3, (-1, p))  # (B, T, 3, S/P, P, S/P, P)
        patches = grid.permute(0, 3, 5, 1, 2, 4, 6).flatten(4).flatten(1, 2)  # (B, N, T, 3*P*P)
        return nn.functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class TimeSformer(nn.Module):
    """Frames to one class token and N patch tokens, each averaged over time.

    Parameter names and shapes are those of the released checkpoints (``visual_encoder.model.*``),
    including the unused, frozen ``head``.

    Args:
        image_size: Pixels of a frame's side, a multiple of `patch_size`.
        patch_size: Pixels of a patch's side.
        num_frames: Most frames of a clip; fewer take the nearest time embeddings.
        embed_dim: Width, a multiple of `num_heads`.
        depth: Number of blocks.
        num_heads: Heads of both attentions.
        mlp_ratio: Hidden width of the MLP over `embed_dim`.
        drop_rate: Dropout after the embeddings, the attention projections and the MLP's layers.
        attn_drop_rate: Dropout of attention weights.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        gradient_checkpointing: Recompute each block in the backward pass instead of storing it.
        initializer_range: Standard deviation of initial linear weights and of the class token;
            0.02 suits a width of 768, smaller widths learn faster from 0.02 * sqrt(768 / width).
        pos_embed_std: Standard deviation of the initial position embedding.
        time_embed_std: Standard deviation of the initial time embedding.
        temporal_init: "zero" for `temporal_fc` (the model starts as an image transformer of each
            frame), or "normal" as for other linear layers.
        attention: Kernel of `dot_product_attention`.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        num_frames: int = 8,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        gradient_checkpointing: bool = False,
        initializer_range: float = 0.02,
        pos_embed_std: float = 0.02,
        time_embed_std: float = 0.0,
        temporal_init: Literal["zero", "normal"] = "zero",
        attention: Kernel = "auto",
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of patch_size {patch_size}")
        # Embeddings of patches, positions and time.
        self.image_size = image_size
        self.num_frames = num_frames
        self.embed_dim = embed_dim
        self.gradient_checkpointing = gradient_checkpointing
        self.patch_embed = PatchEmbed(patch_size=patch_size, embed_dim=embed_dim)
        num_patches = (image_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_patches, embed_dim))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.pos_drop = nn.Dropout(drop_rate)
        # Blocks with rising stochastic depth, and the head of the checkpoints.
        self.blocks = nn.ModuleList(
            Block(
                embed_dim=embed_dim,
                num_heads=num_heads,
                mlp_ratio=mlp_ratio,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path_rate * index / max(depth - 1, 1),
                attention=attention,
            )
            for index in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(embed_dim, NUM_KINETICS_CLASSES).requires_grad_(False)
        self._init_weights(
            initializer_range=initializer_range,
            pos_embed_std=pos_embed_std,
            time_embed_std=time_embed_std,
            temporal_init=temporal_init,
        )

    def _init_weights(
        self,
        *,
        initializer_range: float,
        pos_embed_std: float,
        time_embed_std: float,
        temporal_init: Literal["zero", "normal"],
    ) -> None:
        normal_(self.cls_token, std=initializer_range)
        normal_(self.pos_embed, std=pos_embed_std)
        normal_(self.time_embed, std=time_embed_std)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                if name.endswith("temporal_fc") and temporal_init == "zero":
                    nn.init.zeros_(module.weight)
                else:
                    normal_(module.weight, std=initializer_range)
                nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to (B, 1+N, D): class token, row-major patches.

        Raises:
            ValueError: T exceeds or S differs from the model's size.
        """
        num_frames, *picture = frames.shape[1:]
        expected = (self.num_frames, 3, self.image_size, self.image_size)
        if tuple(picture) != expected[1:] or not 1 <= num_frames <= self.num_frames:
            raise ValueError(
                f"the video encoder was built for (frames, channels, height, width) {expected}, or "
                f"fewer frames, but was given {tuple(frames.shape[1:])}"
            )
        # Embed patches, positions and times.
        patches = self.patch_embed(frames.to(self.pos_embed.dtype))  # (B, N, T, D)
        time: Tensor = self.time_embed
        if num_frames != self.num_frames:
            time = resize_time_embed(time, num_frames)  # (1, T, D)
        patches = patches + (self.pos_embed[:, 1:].unsqueeze(2) + time.unsqueeze(1))
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(frames), -1, -1)  # (B, 1, D)
        cls, patches = self.pos_drop(cls), self.pos_drop(patches)
        # Attend block by block, then average over time.
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                cls, patches = checkpoint(block, cls, patches, use_reentrant=False)
            else:
                cls, patches = block(cls, patches)
        return torch.cat([self.norm(cls), self.norm(patches).mean(dim=2)], dim=1)  # (B, 1+N, D)
