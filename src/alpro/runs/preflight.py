"""Checks before any work: missing files, all in one report, and keys without effect."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alpro.configs.downstream import DownstreamConfig
from alpro.configs.experiment import ExperimentConfig
from alpro.configs.loading import ResolvedConfig
from alpro.configs.sources import INFERENCE_SOURCE, STORED_SOURCE
from alpro.datasets.storage import storage_kind
from alpro.datasets.storage.directory_index import folder_trouble, is_open_folder
from alpro.datasets.storage.lmdb_videos import data_file
from alpro.datasets.tokenization import check_vocabulary
from alpro.distributed.engine import Engine, usable_precision
from alpro.errors import InputError
from alpro.experiment.experiment import DatasetPaths
from alpro.families.registry import load_family
from alpro.training.identity import architecture_of
from alpro.training.run_directory import RunDirectory, changed_keys, read_stored, run_directory_of
from alpro.user_files import NO_FILE, missing_file, path_hint, why_unreadable

logger = logging.getLogger(__name__)

_REMEDY = "Correct the paths, or make the files available."


def check_training_inputs(
    config: ExperimentConfig,
    *,
    sets: Iterable[DatasetPaths],
    others: Mapping[str, Path],
    resumes: bool,
) -> None:
    """Report all that is missing for training: annotations, videos, vocabulary, weights.

    The files of `others` are given by their config keys; a run that `resumes` needs no weights.
    """
    # A run keeps copies of such files: offer them in place of one that is gone.
    problems = _missing_sets(sets)
    copies = RunDirectory(Path(config.output_dir), rank=0).copies
    for key, path in others.items():
        copy = copies.get(key)
        has_copy = resumes and copy is not None and copy.is_file()
        hint = f" The run has kept a copy; give --{key} {copy}." if has_copy else ""
        problems += [f"{problem}{hint}" for problem in missing_file(key, path)]
    weights = [] if resumes else _missing_weights(config)
    if weights and not os.path.lexists(config.e2e_weights_path or "."):
        weights.append("To train from random weights: --e2e_weights_path null --random_init 1.")
    _report([*problems, *_missing_vocabulary(config), *weights])


def check_validation_inputs(resolved: ResolvedConfig[Any], *, sets: Iterable[DatasetPaths]) -> None:
    """Report all that is missing to run a checkpoint on validation sets."""
    problems = [*_missing_sets(sets), *_missing_vocabulary(resolved.config)]
    _report([*problems, *_missing_weights(resolved.config), *_other_architecture(resolved)])


def check_inference_inputs(resolved: ResolvedConfig[Any], *, others: Mapping[str, Path]) -> None:
    """Report all that is missing for inference: annotations, videos, vocabulary, checkpoint.

    Parts of the config may come from the trained run, and `others` are files by config key.
    """
    # Look for the set that the flags name.
    config: DownstreamConfig = resolved.config
    problems = [
        *missing_file("inference_txt_db", Path(str(config.inference_txt_db))),
        *_missing_folder("inference_img_db", str(config.inference_img_db)),
    ]
    # Look for the files that training used; the run may have kept copies.
    output = RunDirectory(Path(config.output_dir), rank=0)
    for key, path in others.items():
        copy = output.copies.get(key)
        name = copy if copy is not None and copy.is_file() else "FILE"
        problems += _with_origin(missing_file(key, path), resolved, f"{key} {name}")
    problems += _with_origin(_missing_vocabulary(config), resolved, "tokenizer_dir DIR")
    problems += _other_architecture(resolved)
    # The checkpoint is one of the run's own steps, or named by its path.
    if resolved.sources["e2e_weights_path"] == INFERENCE_SOURCE:
        _report([*problems, *_missing_step(output, config.inference_model_step)])
    else:
        _report([*problems, *_missing_weights(config)])


def _missing_step(output: RunDirectory, step: str) -> list[str]:
    path = output.checkpoint(step)
    if path.is_file():
        return []
    # List the checkpoints that can be chosen instead.
    if steps := output.steps():
        return [f"inference_model_step is {step}; {path.parent} has {', '.join(steps)}."]
    return [f"{path.parent}: no checkpoint yet; continue the training first."]


def _other_architecture(resolved: ResolvedConfig[Any]) -> list[str]:
    """Compare the model with the architecture of the run that wrote the checkpoint."""
    run = run_directory_of(Path(str(resolved.config.e2e_weights_path)))
    if run is None:
        return []
    trained = architecture_of(read_stored(run.args))
    # Dropout and the like may differ, sizes may not.
    problems = []
    for key, content in resolved.architecture.items():
        now, there = asdict(content), trained.get(key, {})
        ignored = getattr(content, "TRAINING_ONLY", ())
        if changed := changed_keys(there, now, without=ignored):
            values = (f"{name} {there[name]!r} there, {now[name]!r} now" for name in changed)
            problems.append(
                f"{key}: {getattr(resolved.config, key)} is not the one of {run.args}: "
                f"{'; '.join(values)}. Give --{key} FILE with its values."
            )
    return problems


def _with_origin(problems: list[str], resolved: ResolvedConfig[Any], flag: str) -> list[str]:
    """Say that missing files were named by the trained run, and which flag replaces them."""
    if resolved.sources[flag.split()[0]] != STORED_SOURCE:
        return problems
    stored = RunDirectory(Path(resolved.config.output_dir), rank=0).args
    return [f"{problem} This is from {stored}; give --{flag}." for problem in problems]


def _report(problems: Iterable[str]) -> None:
    if lines := list(problems):
        raise InputError("\n".join([*lines, _REMEDY]))


def _missing_sets(sets: Iterable[DatasetPaths]) -> list[str]:
    problems = []
    for one in sets:
        named = f"{one.key}.{one.annotations_key} ({one.name})"
        problems += missing_file(named, one.annotations)
        if one.folder is not None:
            named = f"{one.key}.img ({one.name})"
            problems += _missing_folder(named, one.folder, holds_videos=one.holds_videos)
    return problems


def _missing_folder(key: str, path: str, *, holds_videos: bool = True) -> list[str]:
    """Describe the problem with a folder; an LMDB and a tar shard may also be one file."""
    place = Path(path)
    if why_unreadable(place) == NO_FILE:
        return [f"{key}: there is no folder {path}.{path_hint(path)}"]
    kind = storage_kind(place) if holds_videos else "folder"
    if kind != "folder" and not place.is_dir():
        return missing_file(key, place)
    if not is_open_folder(place):
        return [f"{key}: {folder_trouble(place)}."]
    # A folder with an LMDB in it is read through its data file.
    database = data_file(place)
    return missing_file(key, database) if holds_videos and database.exists() else []


def _missing_vocabulary(config: ExperimentConfig) -> list[str]:
    folder = Path(config.tokenizer_dir)
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        return _missing_folder("tokenizer_dir", str(folder), holds_videos=False)
    layout = load_family(config.family).tokenizer
    try:
        check_vocabulary(folder, layout=layout)
    except InputError as error:
        return [str(error)]
    files = sorted({*folder.glob("*.txt"), *folder.glob("*.json")})
    return [line for file in files for line in missing_file("tokenizer_dir", file)]


def _missing_weights(config: ExperimentConfig) -> list[str]:
    if config.e2e_weights_path is not None:
        path = Path(config.e2e_weights_path)
        # A run's folder is named by mistake for one of its checkpoints.
        if path.is_dir():
            patterns = ("", "ckpt/") if os.access(path, os.R_OK | os.X_OK) else ()
            files = (file for part in patterns for file in path.glob(f"{part}model_step_best.pt"))
            example = next(files, "model_step_best.pt of a run")
            return [f"e2e_weights_path: {path} is a folder; name a file such as {example}."]
        if not os.path.lexists(path):
            hint = path_hint(str(path))
            return [f"e2e_weights_path: {path}: there is no such checkpoint file.{hint}"]
        return missing_file("e2e_weights_path", path)
    return [] if config.random_init else load_family(config.family).starting_weights.missing(config)


def log_notices(resolved: ResolvedConfig[Any], *, engine: Engine) -> None:
    """Warn about keys without effect and values that are replaced, on rank 0."""
    if engine.rank != 0:
        return
    config: ExperimentConfig = resolved.config
    infers = isinstance(config, DownstreamConfig) and config.do_inference
    stored = {key for key, source in resolved.sources.items() if source == STORED_SOURCE}
    notices = config.notices(infers=infers, stored=stored)
    used = usable_precision(config.precision, engine.device)
    if used != config.precision:
        notices.insert(
            0, f"precision: {config.precision} needs a GPU; this run on a CPU uses {used}"
        )
    for notice in [*resolved.warnings, *notices]:
        logger.warning(notice)
