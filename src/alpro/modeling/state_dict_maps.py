"""State dicts in whatever they are wrapped and nested in: finding one by its names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

StateDict = dict[str, Tensor]

# Parts that wrappers put anywhere into names: torch.compile, data parallelism, FSDP, DeepSpeed and
# activation checkpointing. No module of ours is called so.
WRAPPER_PARTS = frozenset(
    {
        *("_orig_mod", "module", "_fsdp_wrapped_module", "_forward_module", "_fpw_module"),
        "_checkpoint_wrapped_module",
    }
)
UNUSED_PARTS = frozenset({"n_averaged"})  # a counter of torch.optim.swa_utils.AveragedModel
_OPTIMIZER = re.compile(r"(?<![a-z])optim(izers?)?(?![a-z])", re.IGNORECASE)
_AVERAGE = re.compile(r"(?<![a-z])(ema|swa|averaged?|shadow|momentum)(?![a-z])", re.IGNORECASE)

# Names in models that are no use as weights: (part of a name, description).
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
    """One state dict of those that a file holds."""

    names: dict[str, str]
    """Name without wrappers -> name in the file."""
    wrapper: str
    """Prefix of its names in the file."""
    others: list[str]
    """The same of the state dicts that were not chosen."""


def choose_state_dict(names: Iterable[str], *, roots: Sequence[str]) -> Chosen:
    """Find a state dict of known names in whatever it is wrapped and nested in.

    Parts of a name are set apart by "." and, where a mapping is in another, by "/". A name begins
    at its first part in `roots`; all before it is wrapper, and so is each of `WRAPPER_PARTS`
    wherever it stands. Names with the same wrapper are one state dict. Of several the plain model
    comes before a teacher, that before its student, that before averages (EMA); then the one with
    most tensors, the shorter wrapper, the first. States of optimizers do not count.

    Args:
        names: of the tensors in a file.
        roots: first parts of the names that are looked for, such as `visual_encoder`.

    Returns:
        The state dict, empty if there is none. Unknown names in the same place belong to it.

    Raises:
        ValueError: two of its names are one without their wrappers.
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

    # Unknown names in the same place belong to it: the model's own check reports them.
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
    parts = re.split(r"([./])", name)  # parts and what separates them, by turns
    kept = [i for i in range(0, len(parts), 2) if parts[i] not in WRAPPER_PARTS]
    return "".join(parts[i] + "".join(parts[i + 1 : i + 2]) for i in kept)


def _rank(wrapper: str) -> int:
    """Order in which several state dicts are preferred."""
    if _AVERAGE.search(wrapper):
        return 3
    return 2 if "student" in wrapper else int("teacher" in wrapper)


def other_model(names: Iterable[str]) -> str | None:
    """Description of a well-known model that cannot be used, by the names of its tensors."""
    known = list(names)
    for part, description in OTHER_MODELS:
        if any(part in name for name in known):
            return description
    return None
