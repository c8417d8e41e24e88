"""Several clips of one video: each is encoded and scored by itself, then the scores are joined.

Training and evaluation join them alike.

Shapes: B videos, C clips of each, T frames, N patches, S side of a frame in pixels, D width,
E embedding.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from alpro.modeling.contracts import Encoders, VideoFeatures
from alpro.modeling.grad_cache import grad_cached

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
    model: Encoders,
    frames: Tensor,
    *,
    normalize: Callable[[Tensor], Tensor],
    grad_cache_size: int = 0,
) -> VideoFeatures:
    """Encode the clips of all videos, in training as one batch.

    Without gradients they are encoded one after the other: memory does not grow with C.

    Args:
        model: what encodes them.
        frames: (B, C, T, 3, S, S) uint8, on the model's device.
        normalize: uint8 frames to what the model expects.
        grad_cache_size: clips that go through the model at a time in training, 0 for all at once.

    Returns:
        tokens (B, C, N, D), embedding (B, C, E) and, where the model gives one, mask (B, C, N).
    """

    def encode(clips: Tensor) -> VideoFeatures:
        return model.encode_video(normalize(clips))

    parts: Iterable[Tensor | None]
    if torch.is_grad_enabled():
        encoded = grad_cached(encode, frames.flatten(0, 1), size=grad_cache_size)  # (B*C, ...)
        parts = (None if x is None else x.unflatten(0, frames.shape[:2]) for x in encoded)
    else:
        clips = zip(*(encode(clip) for clip in frames.unbind(dim=1)), strict=True)
        parts = (None if of[0] is None else torch.stack(of, dim=1) for of in clips)
    return VideoFeatures(*parts)  # type: ignore[arg-type]  # only the mask may be None


def clip_of(video: VideoFeatures, clip: int) -> VideoFeatures:
    """One clip of each video: features (B, C, ...) to (B, ...)."""
    mask = None if video.mask is None else video.mask[:, clip]
    return VideoFeatures(video.tokens[:, clip], video.embedding[:, clip], mask)


def score_clips(
    score: Callable[[VideoFeatures], Tensor], video: VideoFeatures, *, how: str
) -> Tensor:
    """Score each clip of some videos and join the scores.

    Args:
        score: features (B, ...) of one clip of each video to logits (K, A).
        video: features (B, C, ...).
        how: see :func:`aggregate_clips`.

    Returns:
        (K, A) float32.
    """
    scores = [score(clip_of(video, clip)).float() for clip in range(video.tokens.shape[1])]
    return aggregate_clips(torch.stack(scores, dim=1), how=how, dim=1)
