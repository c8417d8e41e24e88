"""The contrastive loss of videos of one clip, from embeddings (B, E) and (G, E)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from alpro.losses import contrastive_loss_from_logits, similarity_logits


def contrastive_loss(
    video: Tensor, text: Tensor, *, all_video: Tensor, offset: int = 0, **others: Any
) -> Tensor:
    """The loss of one clip of each video."""
    all_clips = all_video.unsqueeze(1)
    scores = similarity_logits(video.unsqueeze(1), text, all_video=all_clips, **others)
    return contrastive_loss_from_logits(scores, offset=offset)
