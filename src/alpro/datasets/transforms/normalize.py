"""Normalisation of frames on the device, erasing of regions, and reordering in time.

Shapes: ``B`` batch, ``T`` frames, ``S`` side of the square frames in pixels, ``P`` patches along
each side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from alpro.datasets.transforms.preprocessing import PixelPreprocessing

_MAX_PIXEL = 255.0


class Normalize(nn.Module):
    """Turn pixels into the video encoder's input: ``(x / 255 - mean) / std`` per channel."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        scale: int = 1,
        channel_order: str = "rgb",
    ) -> None:
        """Take the fields of these names of a ``PixelPreprocessing``."""
        super().__init__()
        self.scale = scale
        self.channel_order = channel_order
        # Not in the state dict: checkpoints hold the model's own tensors only.
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1), persistent=False)

    @classmethod
    def of(cls, pixels: PixelPreprocessing) -> Normalize:
        """Normalisation of a model family's pixels."""
        return cls(pixels.mean, pixels.std, scale=pixels.scale, channel_order=pixels.channel_order)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise (B, T, 3, S, S) uint8 RGB frames to float32 in the model's channel order."""
        pixels = frames.float()
        if self.scale != _MAX_PIXEL:
            pixels = pixels.div_(_MAX_PIXEL)
        pixels = pixels.sub_(self.mean).div_(self.std)
        return pixels.flip(-3) if self.channel_order == "bgr" else pixels


def erase_outside(frames: Tensor, region: Tensor) -> Tensor:
    """Make (B, T, 3, S, S) frames black outside a (B, P, P) bool region, true inside."""
    patch = frames.shape[-1] // region.shape[-1]
    pixels = region.repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)  # (B, S, S)
    return frames * pixels[:, None, None]


def reorder_frames(
    frames: np.ndarray, order: str, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Put frames (T, ...) into ``original``, ``reversed`` or ``shuffled`` order.

    Evaluation with another order than the original shows whether a model makes use of time.
    """
    if order == "original":
        return frames
    if order == "reversed":
        return np.ascontiguousarray(frames[::-1])
    if order == "shuffled":
        if rng is None:
            raise ValueError("frame order 'shuffled' needs a generator")
        return frames[rng.permutation(len(frames))]
    raise ValueError(f"frame order {order!r}: choose original, reversed or shuffled")
