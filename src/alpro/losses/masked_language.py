"""Masked language loss (MLM; "mlm" in ALPRO's configs and checkpoints).

n: masked tokens, V: words of the vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def masked_language_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of telling which words were masked.

    Args:
        logits: (n, V), of the masked tokens only.
        labels: (n,) int64, the words that were there.

    Returns:
        Mean over the masked tokens, scalar, float32. Without any it is 0, whose gradient is zero.
    """
    total = functional.cross_entropy(logits.float(), labels, reduction="sum")
    return total / max(len(labels), 1)
