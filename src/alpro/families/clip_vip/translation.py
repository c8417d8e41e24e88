"""Keys and values of CLIP-ViP's own config files, made into ours."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from alpro.configs.sources import ConfigSource

PROXIES, PLAIN = "ViP", "plain"
SETS = ("train_datasets", "val_datasets", "test_datasets")
SHIPPED = {
    f"openai/clip-vit-base-patch{size}": f"config_release/clip_vit_base_patch{size}.json"
    for size in (16, 32)
}
"""Names on the Hugging Face hub -> their architecture, which needs no download."""
_VISION = ("temporal_size", "if_use_temporal_embed", "logit_scale_init_value", "add_cls_num")
_LOSS = (
    "loss_name",
    "if_gather",
    "temp",
    "margin",
    "measure",
    "max_violation",
    "hard_negative_num",
)
NESTED = {
    "clip_vision_additional_config": {"type": "vision_type", **{key: key for key in _VISION}},
    "loss_config": {key: key for key in _LOSS},
}
"""Object in a file -> its keys there and ours."""
_ALIASES_OF_SETS = {"vis": "img", "ratio": "weight"}
ALIASES = {
    "train_num_frms": "num_frm",
    "test_num_frms": "test_num_frm",
    "test_n_clips": "inference_n_clips",
    "test_batch_size": "val_batch_size",
    "input_res": "crop_img_size",
    "inference_datasets": "test_datasets",
    **{f"*.{there}": here for there, here in _ALIASES_OF_SETS.items()},
    **{f"{place}.{key}": own for place, keys in NESTED.items() for key, own in keys.items()},
}
INERT = frozenset(
    ("amp_level", "video_res", "img_aug", "deepspeed_config", "dummy_data")
    + ("if_tb_log", "if_model_saver", "if_log2file")  # all of them are always written
)
REMEDY = (
    "Name a file or a folder; or a model that Hugging Face's cache holds, which `hf download "
    "openai/clip-vit-base-patch32` fills where there is a network."
)
"""For an error about what `resolve` has not found."""
_FORMATS = ("video", "frame")
"""Values of ``vis_format``; ours are recognized by what a folder holds."""
_PATHS = ("output_dir", "e2e_weights_path")
_PATHS_OF_SETS = ("txt", "img", "vid_cap_path")
_UNUSED_OF_SETS = ("img_dir", "cap_path", "img_source", "img_ratio")  # by the original, too
_MEANS_PARAGRAPHS = "didemo"
"""Part of the paths of annotations whose lists of sentences the original joins."""


def translate(layers: Sequence[ConfigSource]) -> None:
    """Change a config file and flags, in this order, from the original's keys into ours."""
    for layer in layers:
        _flatten(layer)
        side = layer.values.get("crop_img_size")
        if isinstance(side, list) and len(side) == 2 and side[0] == side[1]:  # a square
            layer.values["crop_img_size"] = side[0]
        if layer.values.get("optim") == "adamw":
            layer.values["optim"] = "adamw_decay_last"
        for key in SETS:
            _translate_sets(layer, key, joins=_highest(layers, "text_lists") is None)
        _translate_architecture(layer, layers)
        _translate_frozen(layer)
        if layer.values.get("dummy_data"):
            layer.notes.append("dummy_data: frames are read; `alpro demo-data` makes a small set")
    _translate_sampling(layers)
    _mount(layers)


def translate_clip(layer: ConfigSource, *, known: Container[str]) -> None:
    """Change the ``config.json`` of a CLIP of transformers, with an object for each tower.

    Its further keys are those that transformers writes into any file; they are dropped.
    """
    values = layer.values
    if not any(f"{tower}_config" in values for tower in ("vision", "text")):
        return
    kept = {"projection_dim": values["projection_dim"]} if "projection_dim" in values else {}
    for tower in ("vision", "text"):
        for place in (f"{tower}_config", f"{tower}_config_dict"):  # the second wins
            given = values.get(place)
            for name, value in (given if isinstance(given, dict) else {}).items():
                key = next((key for key in (f"{tower}_{name}", name) if key in known), None)
                if key is not None and not (key == name and name == "projection_dim"):
                    kept[key] = value
                    layer.renamed[key] = f"{place}.{name}"
    layer.values = kept


def _flatten(layer: ConfigSource) -> None:
    """Take the keys out of nested objects; those that are unknown stay, to be reported."""
    for place, keys in NESTED.items():
        nested = layer.values.get(place)
        if not isinstance(nested, dict):
            continue
        for name in list(nested):
            if keys.get(name) not in layer.values:  # the key's own place wins, as for flags
                layer.move(f"{place}.{name}", keys.get(name, f"{place}.{name}"))
        del layer.values[place]
    kind = layer.values.get("vision_type")
    if isinstance(kind, str) and kind not in (PROXIES, PLAIN):
        layer.values["vision_type"] = PLAIN
        layer.notes.append(
            f"vision_type {kind!r} is not {PROXIES}: CLIP of each frame, and the mean"
        )


def _translate_sets(layer: ConfigSource, key: str, *, joins: bool) -> None:
    """Change sets: one object may stand for a list of one, ``vis`` is ``img``.

    It `joins` lists of sentences as the original does, where no source says otherwise.
    """
    written = layer.renamed.get(key, key)
    if isinstance(sets := layer.values.get(key), dict):
        layer.values[key] = [sets]
    for index, one in _sets_in(layer, key):
        for there, here in _ALIASES_OF_SETS.items():
            if there in one and here not in one:
                one[here] = one.pop(there)
                layer.renamed[f"{key}.{index}.{here}"] = f"{written}.{index}.{there}"
        if one.get("vis_format") in _FORMATS:
            del one["vis_format"]
        for unused in _UNUSED_OF_SETS:
            one.pop(unused, None)
        if one.get("vid_cap_path") == "":
            del one["vid_cap_path"]
        path = one.get("txt")
        if joins and isinstance(path, str) and _MEANS_PARAGRAPHS in path:
            layer.values["text_lists"] = "paragraph"
            layer.notes.append(
                f"text_lists is paragraph, since {_MEANS_PARAGRAPHS} is in {path}: lists of"
                " sentences are joined"
            )


def _translate_architecture(layer: ConfigSource, layers: Sequence[ConfigSource]) -> None:
    """Find the file of CLIP's architecture, and a vocabulary beside it."""
    name = layer.values.get("clip_config")
    if not isinstance(name, str) or not name:
        return
    if name in SHIPPED and not os.path.exists(name):
        layer.values["clip_config"] = SHIPPED[name]
    elif (folder := resolve(os.path.expanduser(name))).is_dir():
        layer.values["clip_config"] = str(folder / "config.json")
        has_vocabulary = any((folder / file).is_file() for file in ("vocab.json", "tokenizer.json"))
        if has_vocabulary and _highest(layers, "tokenizer_dir") is None:
            layer.values["tokenizer_dir"] = str(folder)


def _translate_frozen(layer: ConfigSource) -> None:
    """Make patterns of the keys that freeze the text tower."""
    for key, part in (("freeze_text_model", "text_model"), ("freeze_text_proj", "text_projection")):
        if layer.values.get(key) in (True, False) and layer.values.pop(key):
            frozen = layer.values.get("freeze") or []
            if isinstance(frozen, list):  # others are reported where values are checked
                layer.values["freeze"] = [*frozen, f"clipmodel.{part}.*"]


def _translate_sampling(layers: Sequence[ConfigSource]) -> None:
    """Make a sampling strategy of ``sample_rate`` and ``sample_jitter``."""
    given = {key: _highest(layers, key) for key in ("sample_rate", "sample_jitter")}
    wanted = {*given, "frm_sampling_strategy"}
    last = next((one for one in reversed(layers) if wanted & one.values.keys()), None)
    if last is not None and "frm_sampling_strategy" not in last.values:
        jittered = "linspace_jitter" if given["sample_jitter"] else "linspace"
        last.values["frm_sampling_strategy"] = "interval" if given["sample_rate"] else jittered
    for layer in layers:
        layer.values.pop("sample_jitter", None)


def _mount(layers: Sequence[ConfigSource]) -> None:
    """Put relative paths below ``blob_mount_dir``."""
    root = _highest(layers, "blob_mount_dir")
    if not isinstance(root, str) or not root:
        return
    for layer in layers:
        layer.values.pop("blob_mount_dir", None)
        places: list[tuple[dict[str, Any], str]] = [(layer.values, key) for key in _PATHS]
        for key in SETS:
            places += [(one, name) for _, one in _sets_in(layer, key) for name in _PATHS_OF_SETS]
        parts = [key for key in layer.values if key.partition(".")[0] in SETS and "." in key]
        places += [(layer.values, key) for key in parts if key.endswith(_PATHS_OF_SETS)]
        for place, key in places:
            if isinstance(place.get(key), str) and place[key]:
                place[key] = str(Path(root).expanduser() / os.path.expanduser(place[key]))


def _sets_in(layer: ConfigSource, key: str) -> list[tuple[int, dict[str, Any]]]:
    """Entries of a list of sets, numbered; others are reported later."""
    sets = layer.values.get(key)
    entries = enumerate(sets if isinstance(sets, list) else [])
    return [(index, one) for index, one in entries if isinstance(one, dict)]


def _highest(layers: Sequence[ConfigSource], key: str) -> Any:
    """Value of a key in the highest layer that has it; None without one."""
    return next((one.values[key] for one in reversed(layers) if key in one.values), None)


def resolve(name: str) -> Path:
    """Path of a model's files: as it is named, else its folder in Hugging Face's cache.

    The network is not asked; a name that is neither is returned as a path, for an error.
    """
    path = Path(name)
    if path.exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return path
