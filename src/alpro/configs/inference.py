"""What an inference run takes from the trained run in its output folder.

A trained run leaves ``log/args.json``, copies of the files of its model as ``log/<key>.json``, and
``ckpt/model_step_<step>.pt``.
The stored config beats the JSON file (a model is evaluated as it was trained), flags beat both. Not
taken from it: keys marked ``per_run`` (where results go, what is evaluated, how and on which
machine), and keys this task does not have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alpro.configs.errors import ConfigIssue
from alpro.configs.fields import fields_of
from alpro.configs.sources import (
    INFERENCE_SOURCE,
    STORED_SOURCE,
    ConfigSource,
    apply_aliases,
    read_json_object,
)
from alpro.errors import InputError

PRETRAINING_SCRIPTS = "src/pretrain/"  # they know no inference


def inference_layers(
    config_class: Any,
    *,
    output_dir: str,
    step: str,
    architecture: Iterable[str],
    flags: Mapping[str, Any],
    problems: list[ConfigIssue],
) -> list[ConfigSource]:
    """The stored config, and the paths that follow from output folder and step, as layers.

    A folder without a stored run is an error, unless the weights are named by a flag.

    Raises:
        InputError: if the run is of another task, so that nothing in it can be right.
    """
    stored = Path(output_dir) / "log" / "args.json"
    if not os.path.lexists(stored) and "e2e_weights_path" not in flags:
        problems.append(_no_run(stored, output_dir=output_dir))
        return []
    layers = []
    if os.path.isfile(stored) or "e2e_weights_path" not in flags:
        layers.append(_stored_layer(config_class, stored, problems))
    derived: dict[str, Any] = {"data_ratio": 1.0}
    copies = {key: stored.with_name(f"{key}.json") for key in architecture}
    derived |= {key: str(copy) for key, copy in copies.items() if os.path.isfile(copy)}
    checkpoint = Path(output_dir) / "ckpt" / f"model_step_{step}.pt"
    derived["e2e_weights_path"] = str(checkpoint)
    return [*layers, ConfigSource(INFERENCE_SOURCE, INFERENCE_SOURCE, derived)]


def stored_config(output_dir: str) -> Mapping[str, Any]:
    """Return what the run in a folder has stored; nothing if there is none or it is damaged."""
    stored = Path(output_dir) / "log" / "args.json"
    return read_json_object(stored, named_by="", problems=[]) if os.path.isfile(stored) else {}


def _no_run(stored: Path, *, output_dir: str) -> ConfigIssue:
    if os.path.isfile(output_dir):
        place, reason = output_dir, "this is a file, not a folder"
    else:
        place, reason = str(stored), "there is no such file"
    return ConfigIssue(
        place,
        f"{reason}, so output_dir is not the folder of a trained run.",
        "Give the output_dir of a training run, or name a checkpoint with --e2e_weights_path.",
    )


def _stored_layer(config_class: Any, path: Path, problems: list[ConfigIssue]) -> ConfigSource:
    values = read_json_object(path, named_by="--output_dir", problems=problems)
    layer = ConfigSource(STORED_SOURCE, str(path), values)
    script = values.get("script", config_class.SCRIPT)
    if script != config_class.SCRIPT:
        run = path.parents[1]
        if str(script).startswith(PRETRAINING_SCRIPTS):
            raise InputError(
                f"{run} is a run of {script}, and results have a folder of their own: give another "
                f"--output_dir, and --e2e_weights_path {run / 'ckpt' / 'model_step_best.pt'}"
            )
        raise InputError(f"{run} is a run of {script}; use that script, or name another folder")
    apply_aliases(layer, config_class.ALIASES)
    options = fields_of(config_class)
    layer.values = {
        key: value
        for key, value in layer.values.items()
        if key in options and not options[key].rule.per_run
    }
    return layer
