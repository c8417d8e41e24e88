"""Comparing a state dict with a model, and resizing embeddings. Pure.

N: patches per frame, T: frames, D: width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn import functional

POSITION_IDS = "position_ids"


@dataclass(frozen=True)
class Mismatch:
    """Differences of a state dict and a model."""

    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Name, shape there and shape here."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.wrong_shape)

    def describe(self, *, limit: int = 10) -> str:
        """One line per difference, at most `limit` of each kind."""
        shapes = [f"{name}: {there} there, {here} here" for name, there, here in self.wrong_shape]
        kinds = (
            ("the checkpoint lacks", self.missing),
            ("the model does not know", self.unexpected),
            ("of another shape", shapes),
        )
        lines = []
        for title, names in kinds:
            lines += [f"{title}: {name}" for name in names[:limit]]
            if len(names) > limit:
                lines.append(f"{title}: {len(names) - limit} more")
        return "\n".join(lines)


def compare(
    state: Mapping[str, Tensor], model: nn.Module, *, allowed_missing: Sequence[str] = ()
) -> Mismatch:
    """Compare names and shapes of an adapted state dict with a model's.

    Args:
        state: See `adapt_state_dict`.
        model: The model to be filled.
        allowed_missing: Patterns (fnmatch) of names that need not be in `state`.

    Returns:
        The differences. A tied parameter counts as present if any of its names is.
    """
    # Tied parameters share their memory, and one name of them is enough.
    expected = model.state_dict()
    provided = {expected[key].data_ptr() for key in state if key in expected}
    missing = [
        key
        for key, value in expected.items()
        if key not in state
        and value.data_ptr() not in provided
        and not any(fnmatchcase(key, pattern) for pattern in allowed_missing)
    ]
    wrong_shape = [
        (key, tuple(value.shape), tuple(expected[key].shape))
        for key, value in state.items()
        if key in expected and value.shape != expected[key].shape
    ]
    return Mismatch(missing, [key for key in state if key not in expected], wrong_shape)


def unusable(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> list[str]:
    """Describe each tensor that a model cannot be filled with, in a line that names it.

    Numbers that are not finite, or not in the model's type, make every score one that is no number.
    """
    problems = []
    for name, value in state.items():
        dtype = model_state[name].dtype
        if value.dtype != dtype and not value.is_floating_point():
            problems.append(f"{name} holds {value.dtype}, the model's is {dtype}")
            continue
        numbers = value.to(dtype)
        # The sum is the quick way to find any; that of large numbers overflows, too.
        finite = numbers.sum().isfinite() or numbers.isfinite()
        if count := int((~finite).sum()):
            of = f"{count} of {value.numel()} numbers"
            problems.append(f"{name}: {of} are NaN or infinite, as of a run that diverged")
    return problems


def resize_time_embed(time_embed: Tensor, num_frames: int) -> Tensor:
    """(1, T, D) to (1, num_frames, D) by nearest neighbour."""
    resized = functional.interpolate(time_embed.transpose(1, 2), size=num_frames, mode="nearest")
    return resized.transpose(1, 2)


def resize_pos_embed(pos_embed: Tensor, num_tokens: int) -> Tensor:
    """(1, 1+N, D) to (1, num_tokens, D): the class token is kept, the square grid resized."""
    # Resize the grid of patches in float32; the class token has no place in it.
    old_side, new_side = math.isqrt(pos_embed.size(1) - 1), math.isqrt(num_tokens - 1)
    grid = pos_embed[:, 1:].transpose(1, 2).unflatten(2, (old_side, old_side))  # (1, D, side, side)
    resized = functional.interpolate(
        grid.float(), size=(new_side, new_side), mode="bicubic", antialias=True
    )
    patches = resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return torch.cat([pos_embed[:, :1], patches], dim=1)
