"""Several clips of one video: each is encoded and scored by itself, then the scores are joined.

Shapes: B videos, C clips of each, T frames, N patches, S side of a frame in pixels, D width,
E embedding.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alpro.modeling.contracts import Encoders, VideoFeatures

AGGREGATIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "mean": torch.mean,
    "max": torch.amax,
    "lse": torch.logsumexp,
}
"""Name of a way to join scores along a dimension -> that way, as ``score_agg_func`` names it."""


def aggregate_clips(scores: Tensor, *, how: str, dim: int) -> Tensor:
    """Join the scores of a video's clips; those of a single clip stay as they are, to the bit.

    Args:
        scores: (..., C, ...) logits or similarities.
        how: a key of :data:`AGGREGATIONS`; "lse" is the logarithm of the sum of exponentials.
        dim: the dimension of the clips, which disappears.
    """
    join = AGGREGATIONS[how]
    return scores.squeeze(dim) if scores.shape[dim] == 1 else join(scores, dim)


def encode_clips(
    model: Encoders, frames: Tensor, *, normalize: Callable[[Tensor], Tensor]
) -> VideoFeatures:
    """Encode clip by clip, so that the encoder's memory does not grow with C.

    Args:
        model: in evaluation mode.
        frames: (B, C, T, 3, S, S) uint8, on the model's device.
        normalize: uint8 frames to what the model expects.

    Returns:
        tokens (B, C, N, D), embedding (B, C, E) and, where the model gives one, mask (B, C, N).
    """
    encoded = [model.encode_video(normalize(clip)) for clip in frames.unbind(dim=1)]
    masks = [features.mask for features in encoded if features.mask is not None]
    return VideoFeatures(
        torch.stack([features.tokens for features in encoded], dim=1),
        torch.stack([features.embedding for features in encoded], dim=1),
        torch.stack(masks, dim=1) if masks else None,
    )


def clip_of(video: VideoFeatures, clip: int) -> VideoFeatures:
    """One clip of each video: features (B, C, ...) to (B, ...)."""
    mask = None if video.mask is None else video.mask[:, clip]
    return VideoFeatures(video.tokens[:, clip], video.embedding[:, clip], mask)


def score_clips(
    score: Callable[[VideoFeatures], Tensor], video: VideoFeatures, *, how: str
) -> Tensor:
    """Score each clip of some videos and join the scores.

    Args:
        score: features (B, ...) of one clip of each video to (B, K) logits.
        video: features (B, C, ...).
        how: see :func:`aggregate_clips`.

    Returns:
        (B, K) float32.
    """
    scores = [score(clip_of(video, clip)).float() for clip in range(video.tokens.shape[1])]
    return aggregate_clips(torch.stack(scores, dim=1), how=how, dim=1)
