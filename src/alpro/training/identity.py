"""Identity of a run by its config, in which files count by content, not by path."""

import filecmp
import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HASHES_KEY = "annotations_sha256"
"""Config key of a file (dotted in sets) -> SHA-256; earlier versions used the path as key."""
ARCHITECTURE_KEY = "architecture"
"""Config key of each model file -> its values."""
_FORMER_ARCHITECTURE = "visual_model"  # of earlier versions: content of the file of `.._cfg`
_PATH = re.compile(r"\w+_datasets\.\d+\.(txt|ann|img)(\..*)?|tokenizer_dir|\w+_(path|config|cfg)")
_WEIGHTS = re.compile(r"\w+_weights_path")
_NOT_NEEDED = re.compile(rf"{HASHES_KEY}\.(tokenizer_dir|\w+_weights_path)")
"""Hashes that earlier versions lack, or of files that the restore file replaces."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Values that identify a run, and paths that do not."""

    values: dict[str, Any]
    """Dotted key -> value, hashes of files included; no paths."""
    paths: dict[str, str]
    """Dotted key -> path."""


def architecture_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of model files in a run's config; earlier versions stored one of them."""
    former = stored.get(_FORMER_ARCHITECTURE, {})
    contents = stored.get(ARCHITECTURE_KEY, {f"{_FORMER_ARCHITECTURE}_cfg": former})
    return contents if isinstance(contents, dict) else {}


def is_weights(key: str) -> bool:
    """Return whether a key names weights to start from."""
    return _WEIGHTS.fullmatch(key) is not None


def identity_of(arguments: Mapping[str, Any], *, without: Collection[str]) -> Identity:
    """Return a run's identity by its config, apart from some keys."""
    # Flatten the config, and separate paths from values.
    leaves: dict[str, Any] = {}
    for key, value in arguments.items():
        if key not in {*without, HASHES_KEY, ARCHITECTURE_KEY, _FORMER_ARCHITECTURE}:
            leaves |= _parts(key, value)
    paths = {key: value for key, value in leaves.items() if _is_path(key, value)}
    values = {key: value for key, value in leaves.items() if key not in paths}
    # The contents of model files and the hashes of other files are values.
    for key, value in architecture_of(arguments).items():
        values |= _parts(key, value)
    stored = arguments.get(HASHES_KEY)
    hashes = hashes_by_key(arguments, stored if isinstance(stored, dict) else {})
    return Identity(values | _parts(HASHES_KEY, hashes), paths)


def hashes_by_key(arguments: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, str]:
    """Key hashes of files by the config keys that name them; others keep their names."""
    leaves = [leaf for key, value in arguments.items() for leaf in _parts(key, value).items()]
    paths = {key: str(Path(value)) for key, value in leaves if _is_path(key, value)}
    named = {key: hashes[path] for key, path in paths.items() if path in hashes}
    return named | {key: hashes[key] for key in hashes.keys() - set(paths.values())}


def changed_values(before: Identity, now: Identity) -> list[str]:
    """Describe each value in which two runs differ, in one line."""
    # A path that only one run has, or that leads to other weights now, counts as a value.
    values, others = dict(before.values), dict(now.values)
    for key in before.paths.keys() ^ now.paths.keys():  # null is no path
        (values if key in before.paths else others)[key] = {**before.paths, **now.paths}[key]
    for key in filter(is_weights, before.paths):
        if _are_other_files(before.paths.get(key), now.paths.get(key)):
            values[key], others[key] = before.paths[key], now.paths[key]
    return [
        f"  {key}: {_shown(values, key)} there, {_shown(others, key)} now"
        for key in sorted(values.keys() | others.keys())
        if values.get(key) != others.get(key)
        and not (_NOT_NEEDED.fullmatch(key) and (key not in values or key not in others))
    ]


def moved_paths(before: Identity, now: Identity) -> dict[str, str]:
    """Dotted key of each changed path -> description of both."""
    return {
        key: f"{key}: {before.paths[key]} before, {path} now"
        for key, path in now.paths.items()
        if before.paths.get(key, path) != path
    }


def _is_path(key: str, value: Any) -> bool:
    return isinstance(value, str) and _PATH.fullmatch(key) is not None


def _are_other_files(before: str | None, now: str | None) -> bool:
    """Return whether both files are there and differ; where one is gone, nothing says so."""
    if before is None or now is None or not os.path.isfile(before) or not os.path.isfile(now):
        return False
    return before != now and not filecmp.cmp(before, now, shallow=False)


def _parts(key: str, value: Any) -> dict[str, Any]:
    """A value under its name, or what it consists of under dotted ones."""
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {key: value}
    return {
        name: leaf
        for part, part_value in value.items()
        for name, leaf in _parts(f"{key}.{part}", part_value).items()
    }


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    if key not in leaves:
        return "nothing"
    value = leaves[key]
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
