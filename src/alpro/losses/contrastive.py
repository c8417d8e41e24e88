"""Video-text contrastive loss (VTC; "itc" in ALPRO's configs and checkpoints).

B: pairs of this process, G: pairs of all processes in rank order, C: clips of a video, E: width of
the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Aggregation = Callable[[Tensor, int], Tensor]
"""From similarities and the dimension of a video's clips to those of the video."""


class PairLoss(Protocol):
    """Contrastive loss over the G pairs of all processes."""

    def __call__(
        self, videos: Tensor, texts: Tensor, *, temperature: Tensor, exclude: Tensor | None
    ) -> Tensor:
        """Scalar from embeddings (G, E); `exclude` (G, G) is true for pairs that count nowhere."""


def similarity(queries: Tensor, keys: Tensor, *, temperature: Tensor | float) -> Tensor:
    """Inner products (B, G) of unit vectors (B, E) and (G, E), divided by the temperature."""
    # In float32, whatever the precision around: small temperatures magnify rounding.
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().t() / temperature


class SimilarityLogits(NamedTuple):
    """Scaled similarities (B, G) of this process's pairs to all, -inf for excluded pairs."""

    video_to_text: Tensor
    text_to_video: Tensor


def video_similarity(
    video: Tensor, text: Tensor, *, temperature: Tensor | float, aggregate: Aggregation
) -> Tensor:
    """Similarities (B, G) of videos (B, C, E) to texts (G, E)."""
    of_clips = similarity(video.flatten(0, 1), text, temperature=temperature)  # (B*C, G)
    return aggregate(of_clips.unflatten(0, video.shape[:2]), 1)


def similarity_logits(
    video: Tensor,
    text: Tensor,
    *,
    all_video: Tensor,
    all_text: Tensor,
    temperature: Tensor | float,
    exclude: Tensor | None = None,
    aggregate: Aggregation = torch.squeeze,
) -> SimilarityLogits:
    """Similarities of B pairs to all G; videos (B, C, E) and (G, C, E), texts (B, E) and (G, E).

    The default of `aggregate` is for one clip; pairs where `exclude` (B, G) is true count nowhere.
    """
    # Each direction compares this process's items with all of the other kind.
    video_to_text = video_similarity(
        video, all_text, temperature=temperature, aggregate=aggregate
    )  # (B, G)
    of_clips = similarity(text, all_video.flatten(0, 1), temperature=temperature)  # (B, G*C)
    text_to_video = aggregate(of_clips.unflatten(1, all_video.shape[:2]), 2)  # (B, G)
    # An excluded pair is neither positive nor negative.
    if exclude is not None:
        video_to_text = video_to_text.masked_fill(exclude, -torch.inf)
        text_to_video = text_to_video.masked_fill(exclude, -torch.inf)
    return SimilarityLogits(video_to_text, text_to_video)


def contrastive_loss_from_logits(scores: SimilarityLogits, *, offset: int = 0) -> Tensor:
    """Symmetric InfoNCE loss: mean of the cross-entropies of both directions.

    Args:
        scores: from `similarity_logits`.
        offset: row of this process's first pair in the global batch.

    Returns:
        Scalar, float32.
    """
    video_to_text, text_to_video = scores
    # The right column of row i is the own partner's place in the global batch.
    own = torch.arange(offset, offset + len(video_to_text), device=video_to_text.device)  # (B,)
    loss_of_videos = functional.cross_entropy(video_to_text, own)
    loss_of_texts = functional.cross_entropy(text_to_video, own)
    return (loss_of_videos + loss_of_texts) / 2
