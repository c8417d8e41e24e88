"""Masked language loss (MLM, "mlm" in ALPRO's configs) and prompted entity loss (PEM, "mpm").

n: masked tokens, V: words of the vocabulary, B: pairs, K: entities.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of predicting the masked words.

    Args:
        logits: (n, V), of the masked tokens only.
        labels: (n,) int64, the masked words.

    Returns:
        Mean over the masked tokens, scalar, float32. Without any it is 0, whose gradient is zero.
    """
    # A mean over no token would be NaN.
    total = functional.cross_entropy(logits.float(), labels, reduction="sum")
    return total / max(len(labels), 1)


def is_confident(targets: Tensor, *, threshold: float) -> Tensor:
    """Whether the best of each sample's (B, K) probabilities reaches the threshold: (B,) bool."""
    return targets.amax(dim=1) >= threshold


def prompted_entity_loss(logits: Tensor, targets: Tensor, *, threshold: float) -> Tensor:
    """Cross-entropy of predicting the prompter's entities.

    Args:
        logits: (B, K).
        targets: (B, K) probabilities.
        threshold: See `is_confident`; the other samples are left out.

    Returns:
        Mean over the confident samples, scalar, float32. Without any it is 0, whose gradient is
        zero.
    """
    # Average over the confident samples; a mean over none would be NaN.
    counts = is_confident(targets, threshold=threshold)  # (B,)
    losses = functional.cross_entropy(logits.float(), targets.float(), reduction="none")  # (B,)
    return (losses * counts).sum() / counts.sum().clamp(min=1)
