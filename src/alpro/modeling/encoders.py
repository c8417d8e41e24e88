"""What the models ask of their encoders; any module that offers it can be plugged in.

B: batch, T: frames, N: patches per frame, L: text tokens, D: width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class VideoEncoder(nn.Module, ABC):
    """Turns normalised frames into a sequence of tokens, the first of which stands for the clip."""

    width: int

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to (B, 1+N, D) tokens."""


class TextEncoder(nn.Module, ABC):
    """Turns token ids into tokens, and joins text and video tokens ("fusion")."""

    width: int

    @abstractmethod
    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) mask of 0/1 to (B, L, D) tokens."""

    @abstractmethod
    def fuse(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, M, D) tokens of both kinds and their (B, M) mask to (B, M, D)."""

    @abstractmethod
    def fuse_first(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """``fuse(tokens, mask)[:, 0]``, (B, D), without computing what does not lead to it."""
