"""Roles of models: evaluators and objectives ask for a role, never for a class.

A family's model takes on the roles that it can fill, by having their methods.

B: batch, T: frames, H, W: pixels, L: text tokens, A: answers.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from alpro.modeling.features import TextFeatures, VideoFeatures

MATCH = 1
"""Index of "these belong together" in the logits of a `Matcher`."""


class Encoders(Protocol):
    """A model that encodes videos and texts, each by itself; always an `nn.Module`."""

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
        """Bring a learnt temperature back into its bounds, in place."""


@runtime_checkable
class Matcher(Encoders, Protocol):
    """Scores whether a text and a video belong together."""

    def match(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Pair row i of `text` with row i of `video`: logits (B, 2); see `MATCH`."""


@runtime_checkable
class AnswerClassifier(Encoders, Protocol):
    """Chooses one answer out of a fixed list."""

    CLASSIFIER: str
    """Pattern of the names of the classifier's parameters, in checkpoints as well."""
    CLASSIFIER_OUTPUT: str
    """Name of its last weight (A, ...)."""
    num_labels: int

    def answer(self, text: TextFeatures, video: VideoFeatures) -> Tensor:
        """Ask question i of `text` about clip i of `video`: logits (B, A)."""
