"""One call from command line to configuration: `load_config`.

Precedence, highest first: flags; for inference, what follows from the trained run (checkpoint and
text encoder of `output_dir`, data_ratio 1) and its stored config (see `inference`); the JSON file
of ``--config``; defaults. All mistakes are collected and raised together.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from alpro.configs import help as report
from alpro.configs.command_line import Flags, parse_flags, peek_flags
from alpro.configs.detect_task import script_of_another_kind
from alpro.configs.downstream import InferenceOptions
from alpro.configs.errors import COMMAND_LINE, ConfigError, ConfigIssue, closest_match, shorten
from alpro.configs.family import detect_family, with_family
from alpro.configs.fields import fields_of
from alpro.configs.parsing import UnfitError, checked
from alpro.configs.sources import (
    DEFAULT_SOURCE,
    FLAG_SOURCE,
    ConfigSource,
    MergedConfig,
    ValueOrigin,
    apply_aliases,
    drop_keys,
    inference_layers,
    merge,
    read_json_object,
    stored_config,
)
from alpro.configs.validation import MAX_REPORTED, missing_problems, read_values
from alpro.families.registry import FAMILIES, family_config

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class ResolvedConfig(Generic[C]):
    """A valid configuration and where its values came from."""

    config: C
    architecture: dict[str, Any]
    """Key of each file of the model -> its content, of the family's class for it."""
    sources: dict[str, str]
    """Key (dotted for parts of lists) -> "default", the JSON file, "stored args.json", "inference",
    "flag"."""
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain JSON values, for ``log/args.json``."""
        return plain(self.config)


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values under its own key names, ordered as in ``--help``."""
    values = dataclasses.asdict(config)
    return {
        name: list(values[name]) if isinstance(values[name], tuple) else values[name]
        for name in fields_of(type(config))
    }


def load_config(
    config_class: type[C], argv: Sequence[str], *, program: str | None = None
) -> ResolvedConfig[C]:
    """Resolve the configuration of a run from `argv` (without the program's name).

    ``--help`` (of `program` or the entry script) and ``--print_config`` print and exit with 0.

    Raises:
        ConfigError: holds everything that is wrong.
    """
    reader = _Reader(config_class, argv)
    if reader.flags.help:
        sys.stdout.write(report.help_text(reader.config_class, program=program))
        raise SystemExit(0)
    reader.read()
    if reader.flags.print_config and not reader.problems:
        sys.stdout.write(reader.table())
        raise SystemExit(0)
    if problems := reader.problems + reader.missing():
        raise ConfigError(problems)
    return ResolvedConfig(
        config=reader.config_class(**reader.values),
        architecture={
            key: model_class(**reader.models[key])
            for key, model_class in reader.family.architecture.items()
        },
        sources=reader.sources(),
        warnings=reader.warnings(),
    )


class _Reader:
    """The state of one `load_config`: values found so far, where from, and what is wrong."""

    def __init__(self, config_class: Any, argv: Sequence[str]) -> None:
        self.problems: list[ConfigIssue] = []
        self.unreadable = False
        """There is no config file to check: only that and mistakes in flags are reported."""
        peeked = peek_flags(argv)
        self.file = self._read_file(peeked.get("config"))
        self.config_class = self._with_family(config_class, peeked)
        self.family = family_config(self.config_class.FAMILY)
        self.flags: Flags = parse_flags(self.config_class, argv)
        self.problems += self.flags.problems
        self.ignored: dict[str, list[str]] = {}
        self.merged = MergedConfig({}, {})
        self.values: dict[str, Any] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.model_keys_given: dict[str, set[str]] = {}
        if self.flags.ignored:
            self.ignored[COMMAND_LINE] = self.flags.ignored

    def _read_file(self, path: str | None) -> ConfigSource | None:
        if path is None:
            return None
        num_problems = len(self.problems)
        values = read_json_object(path, named_by="--config", problems=self.problems)
        self.unreadable = len(self.problems) > num_problems
        return ConfigSource(path, path, values)

    def _with_family(self, config_class: Any, flags: Mapping[str, str]) -> Any:
        """The config class with the keys of the family that flags, stored run or file name."""
        values = self.file.values if self.file is not None else {}
        given = {**values, **flags}
        infers = str(given.get("do_inference", 0)) in ("1", "true", "True")
        stored = stored_config(str(given.get("output_dir", ""))) if infers else {}
        name = detect_family(flags, stored, values)
        if name in FAMILIES:
            return with_family(config_class, name)
        guess = closest_match(name, FAMILIES)
        remedy = f"Did you mean {guess}?" if guess else f"The families: {', '.join(FAMILIES)}."
        place = COMMAND_LINE if "family" in flags or self.file is None else self.file.place
        text = f"family is {shorten(name)}, which there is not."
        raise ConfigError([*self.problems, ConfigIssue(place, text, remedy)])

    def read(self) -> None:
        """Merge all sources, then check single values, then rules between them."""
        layers = self._layers()
        if self.unreadable:
            return
        self.merged = merge(layers, self.problems)
        self.values = read_values(
            self.config_class, self.merged.values, locate=self._located, problems=self.problems
        )
        self._resolve_precision()
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

    def sources(self) -> dict[str, str]:
        """The source of each key, and of each part of a list of datasets."""
        return {row.key: row.source for row in self._rows()}

    def warnings(self) -> list[str]:
        """One line that lists the keys without effect, if there are any."""
        if not self.ignored:
            return []
        lists = [f"{', '.join(keys)} ({place})" for place, keys in self.ignored.items()]
        return [f"keys without effect: {'; '.join(lists)}"]

    def table(self) -> str:
        """What `--print_config` prints."""
        sections = report.sections(self.config_class, self._rows())
        for key, model_class in self.family.architecture.items():
            if key in self.models:
                sections.append((f"{model_class.TOPIC}, {self.values[key]}", self._model_rows(key)))
        return report.config_table(sections, self.warnings())

    def _layers(self) -> list[ConfigSource]:
        layers = [self._file_layer(self.file)] if self.file is not None else []
        given = {**(layers[0].values if layers else {}), **self.flags.values}
        infers = issubclass(self.config_class, InferenceOptions) and (
            given.get("do_inference") in (1, True)
        )
        output_dir = self._text_of("output_dir", given) if infers else None
        step = self._text_of("inference_model_step", given) if infers else None
        if output_dir is not None and step is not None:
            layers += inference_layers(
                self.config_class,
                output_dir=output_dir,
                step=step,
                architecture=self.family.architecture,
                flags=self.flags.values,
                problems=self.problems,
            )
        own = self.flags
        return [*layers, ConfigSource(FLAG_SOURCE, COMMAND_LINE, own.values, renamed=own.renamed)]

    def _text_of(self, key: str, given: Mapping[str, Any]) -> str | None:
        """A text as given or by default; None if it is wrong, which is noted with all values."""
        option = fields_of(self.config_class)[key]
        try:
            return str(checked(given.get(key, option.default), option.type, option.rule))
        except UnfitError:
            return None

    def _file_layer(self, layer: ConfigSource) -> ConfigSource:
        if script := script_of_another_kind(layer.values, self.config_class):
            text = f"its keys are those of {script}."
            remedy = "Run that, or name another config."
            self.problems.append(ConfigIssue(layer.place, text, remedy))
        apply_aliases(layer, self.config_class.ALIASES)
        self._drop_inert(layer, self.config_class.INERT | self.config_class.DERIVED)
        return layer

    def _drop_inert(self, layer: ConfigSource, keys: frozenset[str]) -> None:
        if dropped := drop_keys(layer, keys):
            self.ignored[layer.place] = dropped

    def _resolve_precision(self) -> None:
        """Make `precision` and `fp16` agree; the one from the higher source wins."""
        if "precision" not in self.values or "fp16" not in self.values:
            return
        precision, half = self.values["precision"], self.values["fp16"]
        half_origin, origin = self.merged.origin("fp16"), self.merged.origin("precision")
        overridden = half_origin.rank > origin.rank and half != (precision == "fp16")
        if precision == "auto" or overridden:
            precision = "fp16" if half else "fp32"
            source = f"{half_origin.source} (as fp16)" if half_origin.rank else DEFAULT_SOURCE
            self.merged.origins["precision"] = ValueOrigin(
                source, half_origin.place, half_origin.rank
            )
        elif half and precision != "fp16" and half_origin.rank == origin.rank:
            text = f"fp16 is 1, but precision is {precision}."
            self.problems.append(ConfigIssue(origin.place, text, "Remove fp16 or set it to 0."))
        self.values["precision"] = precision
        self.values["fp16"] = precision == "fp16"

    def _read_model(self, key: str, model_class: Any) -> None:
        path = self.values[key]
        problem_count = len(self.problems)
        named_by = f"{key}, {self.merged.origin(key).place}"
        raw = read_json_object(path, named_by=named_by, problems=self.problems)
        if not raw and len(self.problems) > problem_count:
            return  # unreadable: its defaults must not be checked against the rest
        layer = ConfigSource(path, path, raw)
        self._drop_inert(layer, model_class.INERT)
        self.model_keys_given[key] = set(layer.values)
        self.models[key] = read_values(
            model_class, layer.values, locate=lambda name: (path, name), problems=self.problems
        )

    def _check_rules(self) -> None:
        values = {key: value for key, _, value in self._flat_values()}
        for file_key, model in self.models.items():
            values |= {f"{file_key}.{key}": value for key, value in model.items()}
        for check in self.config_class.CHECKS:
            for keys in islice(check.violations(values), MAX_REPORTED):
                places = [self._located(key)[0] for key in keys]
                place = next((place for place in places if place != DEFAULT_SOURCE), places[0])
                shown = " and ".join(self._shown(key, values[key], place) for key in keys)
                text = f"{shown}: {check.told(*(values[key] for key in keys))}."
                self.problems.append(ConfigIssue(place, text, check.remedy))

    def _located(self, key: str) -> tuple[str, str]:
        """The file a key stands in, or the command line, and the key as it is written there."""
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

    def _flat_values(self) -> Iterator[tuple[str, str, Any]]:
        """Key, field and value of everything valid; lists of datasets as their parts."""
        for name, value in self.values.items():
            if isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
                for index, entry in enumerate(value):
                    for part, part_value in plain(entry).items():
                        yield f"{name}.{index}.{part}", name, part_value
            else:
                yield name, name, value

    def _rows(self) -> list[report.Row]:
        rows = [
            report.Row(key, name, value, self._source(key))
            for key, name, value in self._flat_values()
        ]
        unset = [name for name in fields_of(self.config_class) if name not in self.values]
        return rows + [report.Row(name, name, report.NOT_SET, "") for name in unset]

    def _source(self, key: str) -> str:
        name, _, part = key.partition(".")
        if part:
            index, _, field = part.partition(".")
            if field not in self.merged.values[name][int(index)]:
                return DEFAULT_SOURCE
        return self.merged.origin(key).source

    def _model_rows(self, key: str) -> list[report.Row]:
        given = self.model_keys_given[key]
        return [
            report.Row(name, name, value, self.values[key] if name in given else "default")
            for name, value in self.models[key].items()
        ]
