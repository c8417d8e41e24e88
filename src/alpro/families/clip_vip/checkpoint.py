"""Checkpoints of CLIP-ViP, and CLIP's weights in the layouts that are in use.

D: width, T: frames, E: width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alpro.errors import InputError
from alpro.experiment.weights import load_checkpoint
from alpro.families.clip_vip.model import resize_temporal_embedding
from alpro.families.clip_vip.translation import REMEDY, resolve
from alpro.families.family import CheckpointFormat, StartingWeights
from alpro.modeling.state_dict_adapter import POSITION_IDS, StateDict
from alpro.training.weight_files import find_weights
from alpro.user_files import missing_file

SOURCE = (
    "CLIP's weights (a folder such as openai/clip-vit-base-patch32 of the Hugging Face hub, "
    "OpenAI's or open_clip's .pt file)"
)
PREFIX = "clipmodel."
EMBEDDINGS = f"{PREFIX}vision_model.embeddings."
ADDED_CLS, TIME = f"{EMBEDDINGS}added_cls", f"{EMBEDDINGS}temporal_embedding"
LOGIT_SCALE = f"{PREFIX}logit_scale"
SIZES = {
    "patch_size": (f"{EMBEDDINGS}patch_embedding.weight", -1),
    "vision_config.hidden_size": (f"{EMBEDDINGS}class_embedding", 0),
    "text_config.hidden_size": (f"{PREFIX}text_model.final_layer_norm.weight", 0),
    "projection_dim": (f"{PREFIX}visual_projection.weight", 0),
    "add_cls_num": (ADDED_CLS, 0),
}
"""Config key -> tensor and dimension that have its value."""

ROOTS = (
    *("clipmodel", "vision_model", "text_model", "visual_projection"),  # transformers' names
    *("visual", "text", "transformer", "token_embedding", "positional_embedding", "ln_final"),
    *("text_projection", "logit_scale"),  # of either
)
# Parts of OpenAI's names, which are open_clip's too, and transformers' in either tower.
OPENAI_PARTS = (
    ("token_embedding.", "embeddings.token_embedding."),
    ("positional_embedding", "embeddings.position_embedding.weight"),
    ("class_embedding", "embeddings.class_embedding"),
    ("conv1.", "embeddings.patch_embedding."),
    *(("ln_pre.", "pre_layrnorm."), ("ln_post.", "post_layernorm.")),
    *(("ln_final.", "final_layer_norm."), ("transformer.resblocks.", "encoder.layers.")),
    *((".ln_1.", ".layer_norm1."), (".ln_2.", ".layer_norm2."), (".attn.", ".self_attn.")),
    *((".mlp.c_fc.", ".mlp.fc1."), (".mlp.c_proj.", ".mlp.fc2.")),
)
OPENAI_PROJECTIONS = {"visual.proj": "visual_projection", "text_projection": "text_projection"}
OPENAI_SETTINGS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def from_openai(state: Mapping[str, Tensor]) -> StateDict:
    """CLIP in OpenAI's or open_clip's names under transformers'."""
    renamed: StateDict = {}
    for there, value in state.items():
        name = there.removeprefix("text.")  # open_clip's newer models
        if name.rpartition(".")[2] in OPENAI_SETTINGS:
            continue
        if name == "logit_scale":
            renamed[name] = value
        elif name in OPENAI_PROJECTIONS and value.dim() == 2:  # (D, E) there
            renamed[f"{OPENAI_PROJECTIONS[name]}.weight"] = value.t()
        else:
            tower = "vision_model." if name.startswith("visual.") else "text_model."
            name = name.removeprefix("visual.")
            for old, new in OPENAI_PARTS:
                name = name.replace(old, new)
            # Queries, keys and values are in one tensor there.
            if ".in_proj_" in name and value.dim() and len(value) % 3 == 0:
                for part, third in zip("qkv", value.chunk(3), strict=True):
                    renamed[tower + name.replace(".in_proj_", f".{part}_proj.")] = third
            else:
                renamed[tower + name] = value
    return renamed


def adapt_state_dict(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> StateDict:
    """Fit CLIP-ViP's or CLIP's tensors to a model, in whatever layout; see `describe_adaptation`.

    Raises:
        InputError: the file has another patch size, width or number of proxies.
    """
    # A size that differs explains many shapes at once.
    adapted, _ = _renamed(state)
    for key, (name, axis) in SIZES.items():
        there, here = (x[name].shape if name in x else () for x in (adapted, model_state))
        if len(there) == len(here) > 0 and there[axis] != here[axis]:
            raise InputError(
                f"{key} is {there[axis]} in the file, {here[axis]} in the config. Set it to "
                f"{there[axis]}, or name another file."
            )
    if _has_other_length(adapted, model_state):
        adapted[TIME] = resize_temporal_embedding(adapted[TIME].float(), model_state[TIME].size(1))
    return adapted


def describe_adaptation(
    state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]
) -> list[str]:
    """Describe names and interpolation of `adapt_state_dict`, for the log."""
    renamed, layout = _renamed(state)
    notes = [f"{len(state)} tensors, in the names of {layout}"]
    if ADDED_CLS in model_state and ADDED_CLS not in renamed:
        notes.append("without video proxies, as CLIP is: training adds them to clip_weights")
    if _has_other_length(renamed, model_state):
        lengths = f"{renamed[TIME].size(1)} to {model_state[TIME].size(1)}"
        notes.append(f"time embedding interpolated linearly from temporal_size {lengths}")
    return notes


def _renamed(state: Mapping[str, Tensor]) -> tuple[StateDict, str]:
    """Tensors under the model's names, without position ids, and the layout that they had."""
    renamed = {name: value for name, value in state.items() if not name.endswith(POSITION_IDS)}
    if any(name.startswith(PREFIX) for name in state):
        return renamed, "CLIP-ViP"
    layout = "transformers"
    if any(name.startswith("visual.") for name in state):
        layout, renamed = "OpenAI", from_openai(state)
    return {PREFIX + name: value for name, value in renamed.items()}, layout


def _has_other_length(state: Mapping[str, Tensor], model_state: Mapping[str, Tensor]) -> bool:
    """Whether time embeddings (1, T, D) differ in T alone."""
    there, here = (x[TIME].shape if TIME in x else () for x in (state, model_state))
    return len(there) == len(here) == 3 and 0 < there[1] != here[1] and 0 < there[2] == here[2]


CHECKPOINT = CheckpointFormat(
    roots=ROOTS,
    files=("clip_config", "clip_vision_additional_config"),
    adapt=adapt_state_dict,
    describe=describe_adaptation,
)


def load_clip(model: nn.Module, path: Path) -> None:
    """Start from CLIP, or from a checkpoint of CLIP-ViP; ``logit_scale`` stays as initialised.

    Args:
        model: takes the tensors.
        path: file in transformers', OpenAI's or open_clip's names, or folder that holds one.

    Raises:
        InputError: tensors are missing, unknown, or of other sizes than the model's.
    """
    # CLIP has neither proxies nor time.
    load_checkpoint(
        model,
        find_weights(path, key="clip_weights", source=SOURCE),
        layout=CHECKPOINT,
        allowed_missing=[name for name in (ADDED_CLS, TIME) if name in model.state_dict()],
        silently_missing=(LOGIT_SCALE,),
        prepare=lambda state: {
            name: x for name, x in state.items() if name.rpartition(".")[2] != "logit_scale"
        },
    )


def load_starting_weights(model: nn.Module, config: Any) -> bool:
    """Start from the ``clip_weights`` of a config; False if it names none."""
    if config.clip_weights:
        load_clip(model, resolve(config.clip_weights))
    return bool(config.clip_weights)


def missing_weights(config: Any) -> list[str]:
    """Describe the missing or unreadable file of ``clip_weights``."""
    if not config.clip_weights:
        return []
    path = resolve(config.clip_weights)
    if not path.exists():
        return [f"clip_weights: there is no {path}. {REMEDY}"]
    try:
        return missing_file("clip_weights", find_weights(path, key="clip_weights", source=SOURCE))
    except InputError as error:
        return [str(error)]


STARTING_WEIGHTS = StartingWeights(
    load=load_starting_weights, missing=missing_weights, remedy=f"{SOURCE} as clip_weights"
)
