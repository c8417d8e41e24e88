"""Large batches with the memory of small ones, after GradCache (Gao et al., RepL4NLP 2021).

GradCache runs the encoders twice over parts of a batch: first for the embeddings, from which the
loss of the whole batch and the gradients of the embeddings follow, then once more part by part,
with gradients. Checkpointed parts are the same computation, in the order of the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Rows = TypeVar("Rows", bound=Tensor | tuple[Tensor | None, ...])


def grad_cached(compute: Callable[..., Rows], *rows: Tensor, size: int) -> Rows:
    """``compute(*rows)``, of which the backward pass holds the activations of one chunk at a time.

    Every chunk is computed again in the backward pass, with the same random numbers. Without
    gradients, as in evaluation, nothing is cut.

    Args:
        compute: Treats each row by itself. Gradients also reach what it uses beside its arguments.
        rows: Tensors (B, ...) that are cut along their rows; given to `compute` in order.
        size: Rows of a chunk; 0 does not cut.

    Returns:
        What `compute` returns, a tensor (B, ...) or a named tuple of such tensors and None.
    """
    if size == 0 or len(rows[0]) <= size or not torch.is_grad_enabled():
        return compute(*rows)
    chunks = zip(*(tensor.split(size) for tensor in rows), strict=True)
    return _concatenated([_recomputed(compute, *chunk) for chunk in chunks])


def _recomputed(compute: Callable[..., Rows], *chunk: Tensor) -> Rows:
    """``compute(*chunk)``, computed again in the backward pass."""
    # Chunks that shared autocast's copy of a weight would add up their gradients in its precision:
    # in bf16, ones beyond the 256th would count for nothing.
    torch.clear_autocast_cache()
    return checkpoint(compute, *chunk, use_reentrant=False)


def _concatenated(parts: list[Rows]) -> Rows:
    """Parts of a tensor, or of a named tuple of tensors, one after the other."""
    if isinstance(parts[0], Tensor):
        return cast("Rows", torch.cat(cast("list[Tensor]", parts)))
    fields = zip(*cast("list[tuple[Tensor, ...]]", parts), strict=True)
    joined = [None if field[0] is None else torch.cat(field) for field in fields]
    return cast("Any", type(parts[0]))(*joined)
