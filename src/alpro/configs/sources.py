"""Sources of config values: JSON file, stored config of a trained run, inference defaults, flags.

Each source is a `ConfigSource`; `merge` layers them, lowest first, and records the origin of every
value.

Inference reads ``log/args.json``, the copies of the model files as ``log/<key>.json``, and
``ckpt/model_step_<step>.pt`` from the output folder of the trained run. The stored config overrides
the JSON file (a model is evaluated as it was trained), flags override both. Keys marked ``per_run``
and keys that this task lacks are not taken from it.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, replace
from pathlib import Path
from typing import Any

from alpro.configs.downstream import InferenceOptions
from alpro.configs.errors import COMMAND_LINE, ConfigIssue
from alpro.configs.fields import fields_of, per_run_keys
from alpro.configs.parsing import UnfitError, checked
from alpro.errors import InputError
from alpro.user_files import JsonError, UnreadableFileError, parse_json, read_text

DEFAULT_SOURCE = "default"
STORED_SOURCE = "stored args.json"
INFERENCE_SOURCE = "inference"
FLAG_SOURCE = "flag"
MAX_BYTES = 16 << 20  # of a config or model file


@dataclass
class ConfigSource:
    """Values of one source, by key; keys of flags may be dotted."""

    source: str
    """Name in ``--print_config``."""
    place: str
    """Name in error messages: the file, or the command line."""
    values: dict[str, Any]
    renamed: dict[str, str] = field(default_factory=dict)
    """Key -> alias that this source uses."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the log on what was made of this source."""

    def move(self, written: str, key: str) -> Any:
        """Move a value from the key that a file uses to ours, and return it.

        Parts of nested objects are dotted: ``loss_config.temp``.
        """
        *path, name = written.split(".")
        place = self.values
        for part in path:
            place = place[part]
        value = self.values[key] = place.pop(name)
        self.renamed[key] = written
        return value


@dataclass(frozen=True)
class ValueOrigin:
    """Origin of one value. A higher rank overrides a lower one; defaults have rank 0."""

    source: str
    place: str
    rank: int
    alias: str | None = None
    """Alias that the source uses, if any."""


@dataclass
class MergedConfig:
    """Values of all layers."""

    values: dict[str, Any]
    origins: dict[str, ValueOrigin]
    """By key; a part of a list set by a flag has an origin of its own."""

    def origin(self, key: str) -> ValueOrigin:
        """Origin of the value of `key`, or of the nearest key around it."""
        part = ""
        while key not in self.origins and "." in key:
            key, _, name = key.rpartition(".")
            part = f".{name}{part}"
        origin = self.origins.get(key, ValueOrigin(DEFAULT_SOURCE, DEFAULT_SOURCE, 0))
        return replace(origin, alias=origin.alias + part) if origin.alias and part else origin


def read_json_object(
    path: str | Path, *, named_by: str, problems: list[ConfigIssue]
) -> dict[str, Any]:
    """Read a JSON file that holds one object; return {} and record a problem if that fails."""
    place = str(path)
    text = ""
    try:
        text = read_text(Path(path), max_bytes=MAX_BYTES)
        value = parse_json(text)
    except UnreadableFileError as error:
        if os.path.lexists(path):
            remedy = ""
        elif Path(path).is_absolute():
            remedy = "Check the path."
        else:
            remedy = f"Paths are relative to the current folder, {Path.cwd()}."
        problems.append(ConfigIssue(place, f"{error.reason} (named by {named_by}).", remedy))
    except JsonError as error:
        problems.append(_not_json(place, error, text))
    else:
        if isinstance(value, dict):
            return value
        problems.append(ConfigIssue(place, "must hold one JSON object: {...}."))
    return {}


def _not_json(place: str, error: JsonError, text: str) -> ConfigIssue:
    if error.line is None:
        return ConfigIssue(place, f"{error.reason}.")
    line = text.split("\n")[error.line - 1].strip()
    shown = f", at {line[:60]!r}" if line else ""
    place = f"{place}:{error.line}:{error.column}"
    if not error.is_syntax:
        return ConfigIssue(place, f"{error.reason}{shown}.")
    remedy = "Look for a missing or trailing comma, a missing quote or a comment there."
    return ConfigIssue(place, f"not JSON: {error.reason}{shown}.", remedy)


def apply_aliases(layer: ConfigSource, aliases: dict[str, str]) -> None:
    """Rename aliased keys of a layer; the proper name wins if both are present."""
    for alias, key in aliases.items():
        if alias in layer.values and key in layer.values:
            del layer.values[alias]
        elif alias in layer.values:
            layer.move(alias, key)


def drop_keys(layer: ConfigSource, keys: Iterable[str]) -> list[str]:
    """Remove keys from a layer; return those that were present."""
    present = sorted(set(keys) & set(layer.values))
    for key in present:
        del layer.values[key]
    return present


def merge(layers: Sequence[ConfigSource], problems: list[ConfigIssue]) -> MergedConfig:
    """Merge layers; later ones override earlier ones."""
    merged = MergedConfig({}, {})
    for rank, layer in enumerate(layers, start=1):
        # Parts of values that this layer replaces have no origin of their own any more.
        replaced = {part for part in merged.origins if part.partition(".")[0] in layer.values}
        for part in replaced - layer.values.keys():
            del merged.origins[part]
        for key, value in layer.values.items():
            # Dotted flags set parts of lists, everything else whole values.
            alias = layer.renamed.get(key)
            source = f"{layer.source} (as {alias})" if alias else layer.source
            origin = ValueOrigin(source, layer.place, rank, alias)
            if "." not in key or layer.source != FLAG_SOURCE:
                merged.values[key] = copy.deepcopy(value)
                merged.origins[key] = origin
            elif _set_part(merged.values, key, value, problems):
                merged.origins[key] = origin
        for part, alias in layer.renamed.items():
            if "." in part and (whole := merged.origins.get(part.partition(".")[0])):
                merged.origins[part] = replace(whole, alias=alias)
    return merged


def _set_part(values: dict[str, Any], key: str, value: Any, problems: list[ConfigIssue]) -> bool:
    """Set ``datasets.0.field``; the index after the last one adds an entry."""
    # The list must be one of objects, and the index one of its own or the next.
    name, index_text, field, *entry = key.split(".")
    entries = values.setdefault(name, [])
    index = int(index_text)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return False  # the file's value is wrong, which is reported where it is checked
    if index > len(entries):
        text = f"--{key}: {name} has {len(entries)} entries, counted from 0."
        remedy = f"The next one is --{name}.{len(entries)}."
        problems.append(ConfigIssue(COMMAND_LINE, text, remedy))
        return False
    if index == len(entries):
        entries.append({})
    # Set the field, or an entry of the table that it holds.
    target = entries[index]
    if entry:
        table = target.get(field)
        target[field] = {**(table if isinstance(table, dict) else {}), entry[0]: value}
    else:
        target[field] = value
    return True


def resolve_precision(
    values: dict[str, Any], merged: MergedConfig, *, problems: list[ConfigIssue]
) -> None:
    """Make `precision` and `fp16` agree; the one from the higher source wins."""
    if "precision" not in values or "fp16" not in values:
        return
    # `auto`, or a source below that of `fp16`, follows `fp16`; in one source both must agree.
    precision, half = values["precision"], values["fp16"]
    half_origin, origin = merged.origin("fp16"), merged.origin("precision")
    overridden = half_origin.rank > origin.rank and half != (precision == "fp16")
    if precision == "auto" or overridden:
        precision = "fp16" if half else "fp32"
        source = f"{half_origin.source} (as fp16)" if half_origin.rank else DEFAULT_SOURCE
        merged.origins["precision"] = ValueOrigin(source, half_origin.place, half_origin.rank)
    elif half and precision != "fp16" and half_origin.rank == origin.rank:
        text = f"fp16 is 1, but precision is {precision}."
        problems.append(ConfigIssue(origin.place, text, "Remove fp16 or set it to 0."))
    values["precision"] = precision
    values["fp16"] = precision == "fp16"


PRETRAINING_SCRIPTS = "src/pretrain/"  # without inference


def trained_run(config_class: Any, given: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return output folder and step of the run that inference evaluates.

    None for training, and for invalid values, which are reported where they are checked.
    """
    if not issubclass(config_class, InferenceOptions) or given.get("do_inference") not in (1, True):
        return None
    options = fields_of(config_class)
    run = options["output_dir"], options["inference_model_step"]
    try:
        output_dir, step = (
            checked(given.get(option.name, option.default), option.type, option.rule)
            for option in run
        )
    except UnfitError:
        return None
    return output_dir, step


def stored_config(
    output_dir: str, *, flags: Mapping[str, Any], problems: list[ConfigIssue]
) -> ConfigSource | None:
    """Return the stored config of the run in a folder; None if the folder has none.

    A folder without a run is an error, unless a flag names the weights.
    """
    path = Path(output_dir) / "log" / "args.json"
    if "e2e_weights_path" in flags:
        if not os.path.isfile(path):
            return None
    elif not os.path.lexists(path):
        is_file = os.path.isfile(output_dir)
        reason = "this is a file, not a folder" if is_file else "there is no such file"
        text = f"{reason}, so output_dir is not the folder of a trained run."
        remedy = (
            "Give the output_dir of a training run, or name a checkpoint with --e2e_weights_path."
        )
        problems.append(ConfigIssue(output_dir if is_file else str(path), text, remedy))
        return None
    values = read_json_object(path, named_by="--output_dir", problems=problems)
    return ConfigSource(STORED_SOURCE, str(path), values)


def inference_layer(output_dir: str, step: str, architecture: Iterable[str]) -> ConfigSource:
    """Return what follows for the inference of a run: all annotations, its model files, weights."""
    folder = Path(output_dir)
    copies = {key: folder / "log" / f"{key}.json" for key in architecture}
    derived: dict[str, Any] = {"data_ratio": 1.0}
    derived |= {key: str(copy) for key, copy in copies.items() if os.path.isfile(copy)}
    derived["e2e_weights_path"] = str(folder / "ckpt" / f"model_step_{step}.pt")
    return ConfigSource(INFERENCE_SOURCE, INFERENCE_SOURCE, derived)


def lacks_config(
    config_class: Any, layers: Sequence[ConfigSource], problems: list[ConfigIssue]
) -> bool:
    """Return whether ``--config`` was left out; this is reported unless a flag is wrong."""
    # Flags may replace a config: then they give most of what no run can do without.
    needed = {name for name, one in fields_of(config_class).items() if one.rule.needed == "always"}
    given = needed.intersection(*(layer.values for layer in layers if layer.place == COMMAND_LINE))
    are_files = [layer.source not in (FLAG_SOURCE, INFERENCE_SOURCE) for layer in layers]
    if any(are_files) or len(given) > len(needed) / 2:
        return False
    if not problems:
        remedy = "Add --config FILE; config_release/ has one for each task and data set."
        problems.append(ConfigIssue(COMMAND_LINE, "--config is missing.", remedy))
    return True


def with_current_keys(config_class: Any, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored config under present names, with the defaults of keys that it lacks."""
    layer = ConfigSource(STORED_SOURCE, STORED_SOURCE, dict(stored))
    apply_aliases(layer, config_class.ALIASES)
    for key, option in fields_of(config_class).items():
        value = layer.values.get(key, option.default)
        former = option.rule.former.get(value) if isinstance(value, str) else None
        if value is not MISSING:
            layer.values[key] = former or value
    return layer.values


def keep_result_keys(layer: ConfigSource, config_class: Any) -> None:
    """Keep the keys of a stored config that this task has and that determine its results.

    Raises:
        InputError: the run is of another task.
    """
    # Refuse a run of another script; pretraining has no results.
    script = layer.values.get("script", config_class.SCRIPT)
    if script != config_class.SCRIPT:
        run = Path(layer.place).parents[1]
        if str(script).startswith(PRETRAINING_SCRIPTS):
            raise InputError(
                f"{run} is a run of {script}, and results have a folder of their own: give another "
                f"--output_dir, and --e2e_weights_path {run / 'ckpt' / 'model_step_best.pt'}"
            )
        raise InputError(f"{run} is a run of {script}; use that script, or name another folder")
    apply_aliases(layer, config_class.ALIASES)
    unknown = layer.values.keys() - fields_of(config_class).keys()
    drop_keys(layer, unknown | per_run_keys(config_class))
