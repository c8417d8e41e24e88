"""Video-text contrastive loss (VTC; "itc" in ALPRO's configs and checkpoints).

B: pairs of this process, G: pairs of all processes in rank order, E: width of the embeddings.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def similarity(queries: Tensor, keys: Tensor, *, temperature: Tensor | float) -> Tensor:
    """Scaled inner products in float32, whatever the precision around.

    Args:
        queries: (B, E) unit vectors.
        keys: (G, E) unit vectors.
        temperature: Divisor, a scalar.

    Returns:
        (B, G).
    """
    with torch.autocast(queries.device.type, enabled=False):
        return queries.float() @ keys.float().t() / temperature


def contrastive_loss(
    video: Tensor,
    text: Tensor,
    *,
    all_video: Tensor,
    all_text: Tensor,
    temperature: Tensor | float,
    offset: int = 0,
    exclude: Tensor | None = None,
) -> Tensor:
    """Mean of both directions' cross-entropy of finding the own partner among all pairs.

    Args:
        video: (B, E) unit vectors of this process.
        text: (B, E), row i belonging to row i of `video`.
        all_video: (G, E), in which rows `offset` ... `offset + B - 1` are `video`.
        all_text: (G, E), the same for `text`.
        temperature: Divisor of the similarities, a scalar; learnt if it is a parameter.
        offset: Place of this process's first pair among all.
        exclude: (B, G) bool, True where a pair must not count as a negative, as another caption of
            the same video; None means that all others are negatives.

    Returns:
        Scalar, float32.
    """
    targets = torch.arange(offset, offset + len(video), device=video.device)  # (B,)
    video_to_text = similarity(video, all_text, temperature=temperature)  # (B, G)
    text_to_video = similarity(text, all_video, temperature=temperature)  # (B, G)
    if exclude is not None:
        video_to_text = video_to_text.masked_fill(exclude, -torch.inf)
        text_to_video = text_to_video.masked_fill(exclude, -torch.inf)
    loss_of_videos = functional.cross_entropy(video_to_text, targets)
    loss_of_texts = functional.cross_entropy(text_to_video, targets)
    return (loss_of_videos + loss_of_texts) / 2
