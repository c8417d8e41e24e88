"""TimeSformer with divided space-time attention (Bertasius et al., ICML 2021), as ALPRO uses it.

B: videos, T: frames, S: image side, P: patch side, N: patches per frame, D: width.

Class token (B, 1, D) and patches (B, N, T, D) are separate tensors: unlike the original's sequence
[cls; patches], both attentions start from views.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.init import normal_
from torch.utils.checkpoint import checkpoint

from alpro.modeling.attention import Kernel
from alpro.modeling.contracts import VideoEncoder
from alpro.modeling.state_dict_adapter import resize_time_embed
from alpro.modeling.timesformer_block import LAYER_NORM_EPS, Block

NUM_KINETICS_CLASSES = 400  # rows of the unused `head` in the released checkpoints


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
        self._check_shape(frames)
        cls, patches = self._embed(frames)  # (B, 1, D), (B, N, T, D)
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                cls, patches = checkpoint(block, cls, patches, use_reentrant=False)
            else:
                cls, patches = block(cls, patches)
        return torch.cat([self.norm(cls), self.norm(patches).mean(dim=2)], dim=1)  # (B, 1+N, D)

    def _embed(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.patch_embed(frames.to(self.pos_embed.dtype))  # (B, N, T, D)
        position = self.pos_embed[:, 1:].unsqueeze(2)  # (1, N, 1, D)
        time: Tensor = self.time_embed
        if patches.size(2) != self.num_frames:
            time = resize_time_embed(time, patches.size(2))  # (1, T, D)
        patches = patches + (position + time.unsqueeze(1))
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(frames), -1, -1)  # (B, 1, D)
        return self.pos_drop(cls), self.pos_drop(patches)

    def _check_shape(self, frames: Tensor) -> None:
        num_frames, *picture = frames.shape[1:]
        fits = picture == [3, self.image_size, self.image_size]
        if not fits or not 1 <= num_frames <= self.num_frames:
            expected = (self.num_frames, 3, self.image_size, self.image_size)
            raise ValueError(
                f"the video encoder was built for (frames, channels, height, width) {expected}, or "
                f"fewer frames, but was given {tuple(frames.shape[1:])}"
            )


class TimeSformerEncoder(VideoEncoder):
    """A TimeSformer under the name ``model``, as in the released checkpoints."""

    def __init__(self, model: TimeSformer) -> None:
        super().__init__()
        self.model = model
        self.width = model.embed_dim

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to (B, 1+N, D) tokens."""
        return self.model(frames)
