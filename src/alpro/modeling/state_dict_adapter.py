"""Fitting a state dict of ALPRO's names to a model: renaming, resizing, dropping, comparing. Pure.

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

from alpro.modeling.state_dict_maps import StateDict, text_renames

TIME_EMBED = "time_embed"
POS_EMBED = "pos_embed"
POSITION_IDS = "position_ids"

DROPPABLE = (
    "prompter.",  # the teacher inside a pretraining checkpoint
    "video_prompt_feat",  # buffers of a teacher's own checkpoint
    "image_prompt_feat",
    "mpm_head.",  # heads of other tasks
    "classifier.",
    "itm_head.",
    "text_encoder.cls.",
)
"""Beginnings of names that a checkpoint of another stage may have and a model may lack."""


@dataclass(frozen=True)
class Mismatch:
    """How a state dict and a model differ; `wrong_shape` holds (name, shape there, shape here)."""

    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

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


def adapt_state_dict(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> StateDict:
    """Fit a checkpoint to a model of other frames, image size, heads or text encoder.

    The text encoder's tensors take the names of the model's flavour, see `text_renames`. Time
    embeddings of another length are resized by nearest neighbour (as the original, 4 to 8 frames
    gives 0,0,1,1,2,2,3,3), position embeddings by bicubic interpolation of the patch grid. What the
    model lacks is left out if it is `DROPPABLE`. Position ids are the model's own, as they count
    from zero everywhere. Everything else is passed on for `compare` to judge.

    Args:
        state: The checkpoint; not changed.
        model_state: ``model.state_dict()``.

    Returns:
        A new mapping.
    """
    adapted: StateDict = {}
    renames = text_renames(state, model_state)
    for there, value in state.items():
        key = renames.get(there, there)
        target = model_state.get(key)
        if key.endswith(POSITION_IDS):
            continue
        if target is not None:
            adapted[key] = _resized(key, value, target)
        elif not key.startswith(DROPPABLE):
            adapted[key] = value
    ids = {key: value for key, value in model_state.items() if key.endswith(POSITION_IDS)}
    return {**adapted, **ids}


def describe_adaptation(
    state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> list[str]:
    """What `adapt_state_dict` does to a checkpoint, one sentence per kind, for the log."""
    dropped: dict[str, int] = {}
    renames = text_renames(state, model_state)
    notes = []
    if renames:
        there, here = next(iter(renames.items()))
        notes.append(f"{len(renames)} tensors renamed to the model's names, as {there} to {here}")
    for there, value in state.items():
        key = renames.get(there, there)
        target = model_state.get(key)
        if target is None:
            prefix = next((p for p in DROPPABLE if key.startswith(p)), None)
            if prefix is not None:
                dropped[prefix] = dropped.get(prefix, 0) + 1
        elif _is_resizable(key, value, target):
            notes.append(f"{key} resized from {tuple(value.shape)} to {tuple(target.shape)}")
    return notes + [f"{count} tensors {prefix}* not used" for prefix, count in dropped.items()]


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
    old_side, new_side = math.isqrt(pos_embed.size(1) - 1), math.isqrt(num_tokens - 1)
    grid = pos_embed[:, 1:].transpose(1, 2).unflatten(2, (old_side, old_side))  # (1, D, side, side)
    resized = functional.interpolate(
        grid.float(), size=(new_side, new_side), mode="bicubic", antialias=True
    )
    patches = resized.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return torch.cat([pos_embed[:, :1], patches], dim=1)


def _resized(key: str, value: Tensor, target: Tensor) -> Tensor:
    if not _is_resizable(key, value, target):
        return value
    resize = resize_time_embed if key.endswith(TIME_EMBED) else resize_pos_embed
    return resize(value.to(target.dtype), target.size(1))


def _is_resizable(key: str, value: Tensor, target: Tensor) -> bool:
    """Whether the tensor is an embedding that differs from the model's in length only."""
    if value.dim() != 3 or value.shape == target.shape or value.size(2) != target.size(2):
        return False
    if key.endswith(TIME_EMBED):
        return True
    return key.endswith(POS_EMBED) and _is_grid(value.size(1) - 1) and _is_grid(target.size(1) - 1)


def _is_grid(num_patches: int) -> bool:
    return num_patches > 0 and math.isqrt(num_patches) ** 2 == num_patches
