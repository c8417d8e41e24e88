"""Model folders: everything that a trained model needs to be used, and nothing else.

``model.safetensors``, ``config.json`` with the model's settings and the SHA-256 of every other
file, the tokenizer's files, and a model card, ``README.md``. The output folder of a run is read as
it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from alpro.configs.errors import ConfigError, ConfigIssue
from alpro.configs.family import detect_family, with_family
from alpro.configs.fields import fields_of
from alpro.configs.loading import read_model
from alpro.configs.sources import ConfigSource, with_current_keys
from alpro.configs.validation import read_values
from alpro.errors import InputError
from alpro.families.family import ModelFamily
from alpro.families.registry import FAMILIES, family_config, load_family
from alpro.file_kinds import MODEL_CONFIG, MODEL_WEIGHTS
from alpro.tasks.question_answering.annotations import read_answer_labels
from alpro.tasks.registry import kind_of
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.training.run_directory import RunDirectory
from alpro.training.weight_files import find_weights, refuse_altered
from alpro.user_files import JsonError, UnreadableFileError, read_json

FORMAT, VERSION = "alpro-model", 1
CARD = "README.md"
PREPROCESSOR = "preprocessor_config.json"  # of transformers


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """A trained model on disk."""

    config: Any
    """Of the task's and the family's class; keys of training have their defaults, or None."""
    architecture: Mapping[str, Any]
    """Key of each model file -> its content as the family's dataclass."""
    weights: Path
    tokenizer_dir: Path
    labels: tuple[str, ...] | None = None
    """Answers that the model can give, by label; None without question answering."""

    @property
    def family(self) -> ModelFamily:
        """The model's family."""
        return load_family(self.config.family)


def open_model(folder: Path | str) -> StoredModel:
    """Find a trained model in a folder, and check that all of it is there.

    Raises:
        InputError: the folder holds no model, or a file of it is missing or altered.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder. Give a model's, or that of a run.")
    if (root / "log/args.json").is_file():
        return from_run(root)
    files = (root / MODEL_CONFIG, root / PREPROCESSOR)
    raw, pixels = (read_object(file) if file.is_file() else {} for file in files)
    if raw.get("format") == FORMAT:
        return _from_model_folder(root, raw)
    for name in FAMILIES:
        values = family_config(name).from_transformers(raw, pixels)
        if values is not None:
            return _from_transformers(root, raw, {**values, "family": name})
    raise InputError(
        f"{root}: neither the output folder of a run, with log/args.json, nor a folder with the "
        f"{MODEL_CONFIG} of an exported model or of transformers' CLIP. `alpro export-model RUN "
        "--output DIR` makes a model folder."
    )


def _from_model_folder(root: Path, raw: Mapping[str, Any]) -> StoredModel:
    hashes = raw.get("sha256")
    if raw.get("version") != VERSION or not isinstance(hashes, dict) or MODEL_WEIGHTS not in hashes:
        raise InputError(f"{root / MODEL_CONFIG}: of another version of the format. Update alpro.")
    for name, expected in hashes.items():
        path = root / name
        if not path.is_file():
            raise InputError(f"{root}: {name} is missing. Copy the model folder again.")
        if name not in (CARD, MODEL_WEIGHTS):  # weights are checked when they are read
            refuse_altered(path, expected)
    values = {"script": raw.get("script"), **raw.get("config", {})}
    config, architecture = _restored(root / MODEL_CONFIG, values, raw.get("architecture", {}))
    labels = raw.get("labels")
    return StoredModel(
        config=config,
        architecture=architecture,
        weights=root / MODEL_WEIGHTS,
        tokenizer_dir=root,
        labels=None if labels is None else tuple(labels),
    )


def _from_transformers(
    root: Path, raw: Mapping[str, Any], values: Mapping[str, Any]
) -> StoredModel:
    try:
        weights = find_weights(root, key=str(root), source="weights")
    except InputError as error:
        raise InputError(
            f"{root}: has no weights beside {MODEL_CONFIG}. Copy them there."
        ) from error
    first = next(iter(family_config(values["family"]).architecture))
    values = {**values, "script": RetrievalConfig.SCRIPT, "precision": "fp32"}
    config, architecture = _restored(root / MODEL_CONFIG, values, {first: raw})
    return StoredModel(
        config=config, architecture=architecture, weights=weights, tokenizer_dir=root
    )


def from_run(root: Path, *, step: str = "best") -> StoredModel:
    """Find a checkpoint of a run with all that belongs to it; see `open_model`."""
    run = RunDirectory(root, rank=0)
    if not run.args.is_file():
        raise InputError(f"{root}: no log/args.json: this is not the output folder of a run.")
    weights = run.checkpoint(step)
    if not weights.is_file():
        raise InputError(f"{weights}: no such checkpoint. Train on, or choose another step.")
    values = read_object(run.args)
    keys = family_config(detect_family(values)).architecture
    files = {key: read_object(run.log / f"{key}.json") for key in keys}
    config, architecture = _restored(run.args, values, files)
    labels = run.answer_labels
    return StoredModel(
        config=config,
        architecture=architecture,
        weights=weights,
        tokenizer_dir=Path(config.tokenizer_dir),
        labels=read_answer_labels(labels).texts if labels.is_file() else None,
    )


def _restored(
    place: Path, values: Mapping[str, Any], architecture: Mapping[str, Mapping[str, Any]]
) -> tuple[Any, dict[str, Any]]:
    """Config and architecture of stored values; keys of training need none.

    Raises:
        ConfigError: a value is unknown or out of range.
        InputError: the task is none that videos are evaluated for.
    """
    name = detect_family(values)
    family, config_class = family_config(name), with_family(kind_of(values), name)
    if not hasattr(config_class, "num_evaluated_frames"):
        raise InputError(
            f"{place}: of {config_class.TASK}, whose model is not used by itself. Finetune from it "
            "(e2e_weights_path), and name that run."
        )
    known = with_current_keys(config_class, values)
    problems: list[ConfigIssue] = []
    own = {key: value for key, value in known.items() if key in fields_of(config_class)}
    read = read_values(config_class, own, locate=lambda key: (str(place), key), problems=problems)
    models = {}
    for key, model_class in family.architecture.items():
        layer = ConfigSource(str(place), f"{place} ({key})", dict(architecture.get(key, {})))
        models[key], _ = read_model(model_class, layer, problems)
    if problems:
        raise ConfigError(problems)
    needed = {one.name: None for one in fields(config_class) if one.default is MISSING}
    return (
        config_class(**{**needed, **read}),
        {key: family.architecture[key](**one) for key, one in models.items()},
    )


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold one object."""
    try:
        value = read_json(path)
    except (UnreadableFileError, JsonError) as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold one JSON object: {{...}}")
    return value
