"""Features of videos and texts, in the form that evaluators and objectives take from any model.

B: batch, N: video tokens, L: text tokens, D: width, E: width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class VideoFeatures(NamedTuple):
    """Features of B clips."""

    tokens: Tensor
    """(B, N, D); N is 0 for a dual encoder without fusion."""
    embedding: Tensor
    """(B, E) unit vectors."""
    mask: Tensor | None = None
    """(B, N) of 0/1, 1 where a token counts; None where all do."""

    def select(self, rows: Tensor) -> VideoFeatures:
        """The clips `rows` (K,), in that order, repeated where an index repeats."""
        mask = None if self.mask is None else self.mask[rows]
        return VideoFeatures(self.tokens[rows], self.embedding[rows], mask)

    def expand(self, count: int) -> VideoFeatures:
        """The features of one clip (B = 1) repeated `count` times; views, no copies."""
        parts = (None if x is None else x.expand(count, *x.shape[1:]) for x in self)
        return VideoFeatures(*parts)  # type: ignore[arg-type]  # only the mask may be None


class TextFeatures(NamedTuple):
    """Features of B texts."""

    tokens: Tensor
    """(B, L, D)."""
    mask: Tensor
    """(B, L) of 0/1."""
    embedding: Tensor
    """(B, E) unit vectors."""

    def select(self, rows: Tensor) -> TextFeatures:
        """The texts `rows` (K,), in that order, repeated where an index repeats."""
        return TextFeatures(self.tokens[rows], self.mask[rows], self.embedding[rows])

    def split(self, size: int) -> list[TextFeatures]:
        """The texts in parts of `size`, in order; views, no copies."""
        return [TextFeatures(*parts) for parts in zip(*(x.split(size) for x in self), strict=True)]


def concatenated(texts: Sequence[TextFeatures]) -> TextFeatures:
    """Texts of the same length L, one after the other."""
    return TextFeatures(*(torch.cat(parts) for parts in zip(*texts, strict=True)))
