"""Prompting entity loss (PEM; "mpm" in ALPRO's configs and checkpoints).

B: pairs, K: entities.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def is_confident(targets: Tensor, *, threshold: float) -> Tensor:
    """Which samples show an entity that the prompter is sure of.

    Args:
        targets: (B, K) probabilities.
        threshold: Smallest probability of the best entity; 0 takes every sample.

    Returns:
        (B,) bool.
    """
    return targets.amax(dim=1) >= threshold


def prompted_entity_loss(logits: Tensor, targets: Tensor, *, threshold: float) -> Tensor:
    """Cross-entropy of telling the prompter's entities.

    Args:
        logits: (B, K).
        targets: (B, K) probabilities.
        threshold: See `is_confident`; the other samples are left out.

    Returns:
        Mean over the confident samples, scalar, float32. Without any it is 0, whose gradient is
        zero.
    """
    counts = is_confident(targets, threshold=threshold)  # (B,)
    losses = functional.cross_entropy(logits.float(), targets.float(), reduction="none")  # (B,)
    return (losses * counts).sum() / counts.sum().clamp(min=1)
