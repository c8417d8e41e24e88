"""Model contracts: features, encoder interfaces, and roles.

Evaluators and objectives depend on a role, never on a class; a model has a role by its methods.

B: batch, T: frames, H, W: pixels, N: video tokens, L: text tokens, D: width, E: width of the
embeddings, A: answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

MATCH = 1
"""Index of the positive class in the logits of a `Matcher`."""


class VideoFeatures(NamedTuple):
    """Features of B clips."""

    tokens: Tensor
    """(B, N, D); N is 0 for a dual encoder without fusion."""
    embedding: Tensor
    """(B, E) unit vectors."""
    mask: Tensor | None = None
    """(B, N) of 0/1, 1 where a token counts; None where all do."""

    def select(self, rows: Tensor) -> VideoFeatures:
        """Features of the clips `rows` (K,), in that order; indices may repeat."""
        mask = None if self.mask is None else self.mask[rows]
        return VideoFeatures(self.tokens[rows], self.embedding[rows], mask)

    def expand(self, count: int) -> VideoFeatures:
        """Features of one clip (B = 1) repeated `count` times, as views."""
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
        """Features of the texts `rows` (K,), in that order; indices may repeat."""
        return TextFeatures(self.tokens[rows], self.mask[rows], self.embedding[rows])

    def split(self, size: int) -> list[TextFeatures]:
        """Split into parts of `size` texts, as views."""
        return [TextFeatures(*parts) for parts in zip(*(x.split(size) for x in self), strict=True)]


def concatenated(texts: Sequence[TextFeatures]) -> TextFeatures:
    """Concatenate texts of the same length L."""
    return TextFeatures(*(torch.cat(parts) for parts in zip(*texts, strict=True)))


class VideoEncoder(nn.Module, ABC):
    """Encodes normalised frames to tokens, of which the first represents the clip."""

    width: int

    @abstractmethod
    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, 3, S, S) normalised frames to (B, 1+N, D) tokens."""


class TextEncoder(nn.Module, ABC):
    """Encodes token ids, and fuses text and video tokens."""

    width: int

    @abstractmethod
    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and (B, L) mask of 0/1 to (B, L, D) tokens."""

    @abstractmethod
    def fuse(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, M, D) tokens of both kinds and their (B, M) mask to (B, M, D)."""

    @abstractmethod
    def fuse_first(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """``fuse(tokens, mask)[:, 0]``, (B, D), without unneeded computation."""


class Encoders(Protocol):
    """A model, always an `nn.Module`, that encodes videos and texts separately."""

    training: bool

    def train(self, mode: bool = True) -> Any:
        """See `nn.Module.train`."""

    def encode_video(self, frames: Tensor) -> VideoFeatures:
        """Encode (B, T, 3, H, W) normalised frames."""

    def encode_text(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Encode (B, L) token ids with their (B, L) mask of 0/1."""


@runtime_checkable
class DualEncoder(Encoders, Protocol):
    """Embeds videos and texts in one space, where cosine similarity ranks them."""

    embed_dim: int

    def temperature(self) -> Tensor:
        """Scalar that divides cosine similarities; CLIP's ``1 / exp(logit_scale)``."""

    def clamp_temperature(self) -> None:
        """Clamp the trained temperature to its bounds, in place."""


@runtime_checkable
class Matcher(Encoders, Protocol):
    """Scores text-video pairs."""

    def match(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Pair row i of `text` with row i of `video`: logits (B, 2); see `MATCH`."""


@runtime_checkable
class Captioner(Encoders, Protocol):
    """Describes videos in words."""

    def caption(self, video: VideoFeatures, *, max_length: int) -> Tensor:
        """Describe B clips: (B, L) token ids, L at most `max_length`; special ones are left out."""


@runtime_checkable
class AnswerClassifier(Encoders, Protocol):
    """Classifies into a fixed list of answers."""

    CLASSIFIER: str
    """Pattern of the classifier's parameter names, in checkpoints as well."""
    CLASSIFIER_OUTPUT: str
    """Name of its last weight (A, ...)."""
    num_labels: int

    def answer(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Ask question i of `text` about clip i of `video`: logits (B, A)."""
