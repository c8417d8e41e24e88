"""What is hidden from a model in pretraining: words of a caption, a region of a video.

Both are functions of their generator. What is drawn, and in what order, is the original's.

Shapes: ``L`` text tokens, ``P`` patches along each side of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np

IGNORED = -100
"""Label of a token that nothing is predicted for, as PyTorch's cross-entropy takes it."""

MASK_SHARE = 0.8  # of the chosen tokens become [MASK] (Devlin et al., 2019)
RANDOM_SHARE = 0.5  # of the other chosen ones become any token; the rest stay as they are

REGION_AREA = (0.3, 0.5)  # least and largest share of the frame, before it is aligned to patches
REGION_ASPECT = (0.3, 1 / 0.3)  # least and largest height over width


def mask_tokens(
    ids: np.ndarray,
    *,
    special_ids: Collection[int],
    mask_id: int,
    vocab_size: int,
    probability: float = 0.15,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Hide tokens of a text for a model to predict.

    Args:
        ids: (L,) int64 tokens; they stay as they are.
        special_ids: Tokens that are never chosen.
        mask_id: The token that hides most of the chosen ones.
        vocab_size: A random token is drawn from this many, special ones included.
        probability: With which each token is chosen.
        rng: What all draws are made from.

    Returns:
        The ids with some hidden, and labels: the true id of each chosen token, else `IGNORED`;
        both (L,) int64.
    """
    chosen = (rng.random(ids.shape) < probability) & ~np.isin(ids, list(special_ids))
    hidden = chosen & (rng.random(ids.shape) < MASK_SHARE)
    replaced = chosen & ~hidden & (rng.random(ids.shape) < RANDOM_SHARE)
    random_ids = rng.integers(vocab_size, size=ids.shape)
    masked = np.where(hidden, mask_id, np.where(replaced, random_ids, ids))
    return masked, np.where(chosen, ids, IGNORED)


def draw_region(
    num_patches_per_side: int, *, patch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the box of patches whose content a model shall name.

    Boxes are drawn in pixels, rounded down to whole patches, and rejected until one fits into the
    frame: large and long ones become rarer by that, and portraits more frequent than landscapes.

    Args:
        num_patches_per_side: P.
        patch_size: Side of a patch in pixels.
        rng: What all draws are made from.

    Returns:
        (P, P) bool, true inside the box, which is a patch high and wide at least.
    """
    size = num_patches_per_side * patch_size
    while True:
        area = rng.uniform(*REGION_AREA) * size**2
        aspect = rng.uniform(*REGION_ASPECT)
        width = max(1, int(math.sqrt(area / aspect)) // patch_size)
        height = max(1, int(math.sqrt(area * aspect)) // patch_size)
        left, top = (int(corner) // patch_size for corner in rng.integers(size, size=2))
        if left + width <= num_patches_per_side and top + height <= num_patches_per_side:
            region = np.zeros((num_patches_per_side, num_patches_per_side), dtype=bool)
            region[top : top + height, left : left + width] = True
            return region
