"""Large batches with the memory of small ones, after GradCache (Gao et al., RepL4NLP 2021).

GradCache encodes a batch in chunks, first for all embeddings and the loss, then once more with
gradients. Gradient checkpointing of chunks is the same computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Rows = TypeVar("Rows", bound=Tensor | tuple[Tensor | None, ...])


def grad_cached(compute: Callable[..., Rows], *rows: Tensor, size: int) -> Rows:
    """``compute(*rows)`` with the activations of one chunk at a time in the backward pass.

    Each chunk is recomputed there with the same random numbers; without gradients nothing is cut.

    Args:
        compute: Treats rows independently; returns a tensor (B, ...) or a named tuple of such
            tensors and None. Gradients also reach parameters that it uses.
        rows: Tensors (B, ...), its arguments.
        size: Rows of a chunk; 0 does not cut.
    """
    if size == 0 or len(rows[0]) <= size or not torch.is_grad_enabled():
        return compute(*rows)
    chunks = zip(*(tensor.split(size) for tensor in rows), strict=True)
    return _concatenated([_recomputed(compute, *chunk) for chunk in chunks])


def _recomputed(compute: Callable[..., Rows], *chunk: Tensor) -> Rows:
    # Chunks that share autocast's copy of a weight would accumulate gradients in its precision:
    # in bf16, ones beyond the 256th would be lost.
    torch.clear_autocast_cache()
    return checkpoint(compute, *chunk, use_reentrant=False)


def _concatenated(parts: list[Rows]) -> Rows:
    # Tensors, or named tuples of them with None in the same places.
    if isinstance(parts[0], Tensor):
        return cast("Rows", torch.cat(cast("list[Tensor]", parts)))
    fields = zip(*cast("list[tuple[Tensor, ...]]", parts), strict=True)
    joined = [None if field[0] is None else torch.cat(field) for field in fields]
    return cast("Any", type(parts[0]))(*joined)
