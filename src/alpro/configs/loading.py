"""Config resolution: `load_config`.

Precedence, highest first: flags; for inference, values derived from the trained run in
`output_dir` and its stored config (see `sources`); the JSON file of ``--config``; defaults. All
mistakes are collected and raised together.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Generic, TypeVar

from alpro.configs.command_line import Flags, parse_flags
from alpro.configs.errors import COMMAND_LINE, ConfigError, ConfigIssue, closest_match, shorten
from alpro.configs.family import detect_family, with_family
from alpro.configs.fields import fields_of
from alpro.configs.help import NOT_SET, Row, config_table, help_text, sections
from alpro.configs.sources import (
    DEFAULT_SOURCE,
    FLAG_SOURCE,
    ConfigSource,
    MergedConfig,
    apply_aliases,
    drop_keys,
    inference_layer,
    keep_result_keys,
    lacks_config,
    merge,
    read_json_object,
    resolve_precision,
    stored_config,
    trained_run,
)
from alpro.configs.validation import MAX_REPORTED, missing_problems, read_values
from alpro.families.registry import FAMILIES, family_config
from alpro.file_kinds import FOLDER_WEIGHTS
from alpro.tasks.registry import script_of_another_kind

_CHECKPOINT_KEYS = ("e2e_weights_path", "teacher_weights_path")

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(Generic[C]):
    """A valid configuration with the sources of its values."""

    config: C
    architecture: dict[str, Any]
    """Key of each model file -> its content as the family's dataclass."""
    sources: dict[str, str]
    """Key (dotted for parts of lists) -> "default", the JSON file, "stored args.json", "inference",
    "flag"."""
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, for ``log/args.json``."""
        return plain(self.config)


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as plain JSON values, ordered as in ``--help``."""
    values = dataclasses.asdict(config)
    return {
        name: list(values[name]) if isinstance(values[name], tuple) else values[name]
        for name in fields_of(type(config))
    }


def load_config(
    config_class: type[C], argv: Sequence[str], *, program: str | None = None
) -> ResolvedConfig[C]:
    """Resolve the configuration of a run from `argv` (without the program name).

    ``--help`` (of `program` or the entry script) and ``--print_config`` print and exit with 0.

    Raises:
        ConfigError: lists all mistakes.
    """
    # Parse the flags and merge all sources, unless only --help is wanted.
    reader = _Reader(config_class, argv)
    if reader.flags.help:
        sys.stdout.write(help_text(reader.config_class, program=program))
        raise SystemExit(0)
    reader.read()
    if reader.flags.print_config and not reader.problems:
        sys.stdout.write(reader.table())
        raise SystemExit(0)
    if problems := reader.problems + reader.missing():
        raise ConfigError(problems)

    # Build the dataclasses of the config and of each model file.
    return ResolvedConfig(
        config=reader.config_class(**reader.values),
        architecture={
            key: model_class(**reader.models[key])
            for key, model_class in reader.family.architecture.items()
        },
        sources={row.key: row.source for row in reader.rows()},
        warnings=reader.warnings(),
    )


def read_model(
    model_class: Any, layer: ConfigSource, problems: list[ConfigIssue]
) -> tuple[dict[str, Any], list[str]]:
    """Read the valid values of a model file, translated in place, and its keys without effect."""
    if translate := getattr(model_class, "translate", None):
        translate(layer)
    ignored = drop_keys(layer, model_class.INERT)
    values = read_values(
        model_class,
        layer.values,
        locate=lambda name: (layer.place, layer.renamed.get(name, name)),
        problems=problems,
    )
    return values, ignored


class _Reader:
    """State of one `load_config` call: values, their sources, and problems."""

    def __init__(self, config_class: Any, argv: Sequence[str]) -> None:
        self.problems: list[ConfigIssue] = []
        self.unreadable = False
        """No config of this task is read: only that and mistakes in flags are reported."""
        # File, stored run and family determine the keys; flags of a family are unknown before.
        first = parse_flags(config_class, argv)
        self.file = self._read_file(first.config)
        in_file = self.file.values if self.file is not None else {}
        trained = trained_run(config_class, {**in_file, **first.values})
        stored = stored_config(trained[0], flags=first.values, problems=[]) if trained else None
        self.config_class = self._with_family(config_class, first.values, stored)
        self.family = family_config(self.config_class.FAMILY)
        self.flags: Flags = parse_flags(self.config_class, argv)
        self.problems += self.flags.problems
        self.ignored = {COMMAND_LINE: self.flags.ignored}
        self.notes: list[str] = []
        self.merged = MergedConfig({}, {})
        self.values: dict[str, Any] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.model_keys_given: dict[str, set[str]] = {}

    def _read_file(self, path: str | None) -> ConfigSource | None:
        if path is None:
            return None
        num_problems = len(self.problems)
        values = read_json_object(path, named_by="--config", problems=self.problems)
        self.unreadable = len(self.problems) > num_problems
        return ConfigSource(path, path, values)

    def _with_family(
        self, config_class: Any, flags: Mapping[str, Any], stored: ConfigSource | None
    ) -> Any:
        """Return the class with the keys of the family named by flags, stored run or file."""
        layers = [layer.values for layer in (stored, self.file) if layer is not None]
        name = detect_family(flags, *layers)
        if name in FAMILIES:
            return with_family(config_class, name)
        guess = closest_match(name, FAMILIES)
        remedy = f"Did you mean {guess}?" if guess else f"The families: {', '.join(FAMILIES)}."
        place = COMMAND_LINE if "family" in flags or self.file is None else self.file.place
        text = f"family is {shorten(name)}, which does not exist."
        raise ConfigError([*self.problems, ConfigIssue(place, text, remedy)])

    def read(self) -> None:
        """Merge all sources, then check single values, then rules between them."""
        layers = self._layers()
        if not self.flags.print_config:
            self.unreadable |= lacks_config(self.config_class, layers, self.problems)
        if self.unreadable:
            return
        # Merge the sources, and check each value by itself.
        self.merged = merge(layers, self.problems)
        self.values = read_values(
            self.config_class, self.merged.values, locate=self._located, problems=self.problems
        )
        resolve_precision(self.values, self.merged, problems=self.problems)
        # A model folder stands for its weights.
        for key, name in product(_CHECKPOINT_KEYS, FOLDER_WEIGHTS):
            if os.path.isfile(weights := os.path.join(self.values.get(key) or "", name)):
                self.values[key] = weights
        # Read the model files, and check rules between keys of all files.
        for key, model_class in self.family.architecture.items():
            if isinstance(self.values.get(key), str):
                self._read_model(key, model_class)
        self._check_rules()

    def missing(self) -> list[ConfigIssue]:
        """Needed keys that have no value."""
        if self.unreadable:
            return []
        mode = "inference" if self.values.get("do_inference") else "training"
        place = self.flags.config or COMMAND_LINE
        return missing_problems(
            self.config_class, self.values, self.merged.values, mode=mode, place=place
        )

    def warnings(self) -> list[str]:
        """Sentences on keys that a family has translated, and one on keys without effect."""
        lists = [f"{', '.join(keys)} ({place})" for place, keys in self.ignored.items() if keys]
        return [*self.notes, *([f"keys without effect: {'; '.join(lists)}"] if lists else [])]

    def table(self) -> str:
        """Text of ``--print_config``."""
        topics = sections(self.config_class, self.rows())
        for key, model in self.models.items():
            path, given = self.values[key], self.model_keys_given[key]
            rows = [
                Row(name, value, path if name in given else DEFAULT_SOURCE)
                for name, value in model.items()
            ]
            topics.append((f"{self.family.architecture[key].TOPIC}, {path}", rows))
        return config_table(topics, self.warnings())

    def _layers(self) -> list[ConfigSource]:
        # The file first; for inference the trained run's layers; flags last.
        flags = ConfigSource(FLAG_SOURCE, COMMAND_LINE, self.flags.values, self.flags.renamed)
        layers = [self.file] if self.file is not None else []
        for layer in layers:
            apply_aliases(layer, self.config_class.ALIASES)
        self.family.translate([*layers, flags])
        self.notes = [note for layer in (*layers, flags) for note in layer.notes]
        for layer in layers:
            self._check_file(layer)
        # The trained run's folder may be another one in the family's own keys.
        given = {**(self.file.values if self.file is not None else {}), **flags.values}
        if trained := trained_run(self.config_class, given):
            stored = stored_config(trained[0], flags=flags.values, problems=self.problems)
            if stored is not None:
                keep_result_keys(stored, self.config_class)
                layers.append(stored)
            layers.append(inference_layer(*trained, self.family.architecture))
        return [*layers, flags]

    def _check_file(self, layer: ConfigSource) -> None:
        if script := script_of_another_kind(layer.values, self.config_class):
            text = f"its keys are those of {script}. Run that, or name another config."
            self.problems.append(ConfigIssue(layer.place, text))
            self.unreadable = True
        inert = self.config_class.INERT | self.config_class.DERIVED
        self.ignored[layer.place] = drop_keys(layer, inert)

    def _read_model(self, key: str, model_class: Any) -> None:
        path = self.values[key]
        problem_count = len(self.problems)
        named_by = f"{key}, {self.merged.origin(key).place}"
        raw = read_json_object(path, named_by=named_by, problems=self.problems)
        if not raw and len(self.problems) > problem_count:
            return  # unreadable: its defaults must not be checked against the rest
        # Keep the keys that the file has, for the sources of its values.
        layer = ConfigSource(path, path, raw)
        self.models[key], self.ignored[path] = read_model(model_class, layer, self.problems)
        self.model_keys_given[key] = set(layer.values)

    def _check_rules(self) -> None:
        # Values of model files are keyed by file: encoder_config.width.
        values = self._flat_values()
        for file_key, model in self.models.items():
            values |= {f"{file_key}.{key}": value for key, value in model.items()}
        for check in self.config_class.CHECKS:
            for keys in islice(check.violations(values), MAX_REPORTED):
                # Report the first key that a source sets, and where the others are from.
                places = [self._located(key)[0] for key in keys]
                place = next((place for place in places if place != DEFAULT_SOURCE), places[0])
                shown = " and ".join(self._shown(key, values[key], place) for key in keys)
                text = f"{shown}: {check.explain(*(values[key] for key in keys))}."
                self.problems.append(ConfigIssue(place, text, check.remedy))

    def _located(self, key: str) -> tuple[str, str]:
        """Return the file of a key, or the command line, and the key as written there."""
        file_key, dot, name = key.partition(".")
        if dot and file_key in self.models:
            return self.values[file_key], name
        origin = self.merged.origin(key)
        written = origin.alias or key
        return origin.place, f"--{written}" if origin.place == COMMAND_LINE else written

    def _shown(self, key: str, value: Any, place: str) -> str:
        own_place, name = self._located(key)
        elsewhere = f" ({own_place})" if own_place != place else ""
        return f"{name} = {shorten(value)}{elsewhere}"

    def _flat_values(self) -> dict[str, Any]:
        """Return everything valid by key; lists of datasets as their parts."""
        flat: dict[str, Any] = {}
        for name, value in self.values.items():
            if isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
                for index, entry in enumerate(value):
                    flat |= {f"{name}.{index}.{part}": one for part, one in plain(entry).items()}
            else:
                flat[name] = value
        return flat

    def rows(self) -> list[Row]:
        """Return a row for each key, and for each part of a list of datasets."""
        flat = self._flat_values()
        unset = [name for name in fields_of(self.config_class) if name not in self.values]
        return [
            *(Row(key, value, self._source(key)) for key, value in flat.items()),
            *(Row(name, NOT_SET, "") for name in unset),
        ]

    def _source(self, key: str) -> str:
        name, _, part = key.partition(".")
        if part:
            index, _, field = part.partition(".")
            if field not in self.merged.values[name][int(index)]:
                return DEFAULT_SOURCE
        return self.merged.origin(key).source
