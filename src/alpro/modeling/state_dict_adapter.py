"""State dict selection, comparison with a model, and embedding resizing; pure functions.

N: patches per frame, T: frames, D: width.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

StateDict = dict[str, Tensor]

# Name parts that torch.compile, data parallelism, FSDP, DeepSpeed and activation checkpointing
# insert. No module of ours has one.
WRAPPER_PARTS = frozenset(
    {
        *("_orig_mod", "module", "_fsdp_wrapped_module", "_forward_module", "_fpw_module"),
        "_checkpoint_wrapped_module",
    }
)
UNUSED_PARTS = frozenset({"n_averaged"})  # a counter of torch.optim.swa_utils.AveragedModel
_OPTIMIZER = re.compile(r"(?<![a-z])optim(izers?)?(?![a-z])", re.IGNORECASE)
_AVERAGE = re.compile(r"(?<![a-z])(ema|swa|averaged?|shadow|momentum)(?![a-z])", re.IGNORECASE)

# Part of a tensor name -> well-known model whose weights do not fit.
OTHER_MODELS = (
    ("resblocks.", "CLIP, in OpenAI's names"),
    ("vision_model.", "CLIP or a relative of it, in transformers' names"),
    ("lora_A", "a LoRA adapter, which holds changes of weights and no weights"),
    ("dist_token", "a distilled DeiT"),
    ("distillation_token", "a distilled DeiT"),
    ("relative_position_bias_table", "a Swin Transformer or BEiT"),
    ("decoder_blocks.", "a masked autoencoder (MAE), with its decoder"),
    ("q_bias", "VideoMAE or BEiT"),
    ("layer1.0.conv1", "a ResNet"),
    ("roberta.", "RoBERTa"),
    ("distilbert.", "DistilBERT"),
    ("visual_encoder.blocks.", "ALBEF or BLIP"),
    ("exp_avg", "the state of an optimizer; the weights are in a file beside it"),
)


class Chosen(NamedTuple):
    """State dict chosen from a file."""

    names: dict[str, str]
    """Name without wrappers -> name in the file."""
    wrapper: str
    """Prefix of its names in the file."""
    others: list[str]
    """Prefixes of the state dicts that were not chosen."""


def choose_state_dict(names: Iterable[str], *, roots: Sequence[str]) -> Chosen:
    """Choose the state dict with known names, whatever it is wrapped and nested in.

    Parts of a name are separated by "." and, in nested mappings, by "/". A name begins at its first
    part in `roots`; everything before it is wrapper, and so is each of `WRAPPER_PARTS`. Names with
    the same wrapper are one state dict. Preferred is the plain model, then teacher, student and
    average (EMA); then most tensors, the shorter wrapper, the first. Optimizer states do not count.

    Args:
        names: tensor names in a file.
        roots: first parts of wanted names, such as `visual_encoder`.

    Returns:
        The state dict with unknown names in the same place; empty if there is none.

    Raises:
        ValueError: two names coincide without their wrappers.
    """
    # Group the names by what they are wrapped in.
    by_wrapper: dict[str, list[tuple[str, str]]] = {}
    rest: list[str] = []
    for name in names:
        wrapper, plain = unwrapped(name, roots=roots)
        if not plain:
            rest.append(name)
        elif not _OPTIMIZER.search(wrapper):
            by_wrapper.setdefault(wrapper, []).append((plain, name))
    if not by_wrapper:
        return Chosen({}, "", [])

    # Prefer the plain model, then the one with most tensors, then the shorter wrapper.
    wrapper = min(by_wrapper, key=lambda key: (_rank(key), -len(by_wrapper[key]), len(key)))

    # Unknown names in the same place belong to it: the comparison with the model reports them.
    for name in rest:
        plain = _without_wrapper_parts(name)
        unknown = plain.removeprefix(wrapper)
        if plain.startswith(wrapper) and "/" not in unknown and unknown not in UNUSED_PARTS:
            by_wrapper[wrapper].append((unknown, name))
    chosen: dict[str, str] = {}
    for plain, name in by_wrapper[wrapper]:
        if plain in chosen:
            raise ValueError(f"{plain} is there twice, as {chosen[plain]} and as {name}")
        chosen[plain] = name
    return Chosen(chosen, wrapper, [key for key in by_wrapper if key != wrapper])


def unwrapped(name: str, *, roots: Sequence[str]) -> tuple[str, str]:
    """Split a name in a file into its wrapper and the model's own name, "" if it has no root."""
    name = _without_wrapper_parts(name)
    plain = name.replace("/", ".") + "."
    starts = [0, *(match.end() for match in re.finditer(r"\.(?=.)", plain))]
    for start in starts:
        if any(plain.startswith(f"{root}.", start) for root in roots):
            return name[:start], plain[start:-1]
    return name, ""


def _without_wrapper_parts(name: str) -> str:
    parts = re.split(r"([./])", name)  # parts and separators in turn
    kept = [i for i in range(0, len(parts), 2) if parts[i] not in WRAPPER_PARTS]
    return "".join(parts[i] + "".join(parts[i + 1 : i + 2]) for i in kept)


def _rank(wrapper: str) -> int:
    if _AVERAGE.search(wrapper):
        return 3
    return 2 if "student" in wrapper else int("teacher" in wrapper)


def other_model(names: Iterable[str]) -> str | None:
    """Describe a well-known model that does not fit, by its tensor names."""
    known = list(names)
    fitting = (text for part, text in OTHER_MODELS if any(part in name for name in known))
    return next(fitting, None)


POSITION_IDS = "position_ids"


@dataclass(frozen=True)
class Mismatch:
    """Differences between a state dict and a model."""

    missing: list[str]
    unexpected: list[str]
    wrong_shape: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """Name, shape in the state dict, shape in the model."""

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
        # The first names of each kind, and the number of the others.
        lines = []
        for title, names in kinds:
            lines += [f"{title}: {name}" for name in names[:limit]]
            if len(names) > limit:
                lines.append(f"{title}: {len(names) - limit} more")
        return "\n".join(lines)


def compare(
    state: Mapping[str, Tensor], model: nn.Module, *, allowed_missing: Sequence[str] = ()
) -> Mismatch:
    """Compare names and shapes of a state dict with a model's.

    Names that match patterns (fnmatch) in `allowed_missing` may be absent; a tied parameter counts
    as present if any of its names is.
    """
    # Tied parameters share memory.
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
    """Describe each tensor that is not finite, or not of the model's type, in one line."""
    problems = []
    for name, value in state.items():
        dtype = model_state[name].dtype
        if value.dtype != dtype and not value.is_floating_point():
            problems.append(f"{name} holds {value.dtype}, the model's is {dtype}")
            continue
        numbers = value.to(dtype)
        # The sum is a quick test; it may overflow for large finite numbers.
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
