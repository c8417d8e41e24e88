"""Declaration of config fields (`option`, `required`) and rules, and introspection (`fields_of`).

A declaration carries help text, choices and range; checking, ``--help`` and ``--print_config`` all
work from it. A `Constraint` is a rule between keys, or one for a key that needs an explanation.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, TypedDict, TypeVar, Unpack

T = TypeVar("T")

_METADATA_KEY = "rule"
_NEEDED = Literal["never", "always", "training", "inference"]


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """Requirements of a value beyond its type."""

    help: str
    choices: tuple[str, ...] = ()
    former: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Former name of a choice -> its name."""
    minimum: float | None = None
    """Smallest value allowed (inclusive); for lists, of each element."""
    above: float | None = None
    """Exclusive lower bound."""
    maximum: float | None = None
    """Largest value allowed (inclusive)."""
    below: float | None = None
    """Exclusive upper bound."""
    needed: _NEEDED = "never"
    """Modes in which a missing value is an error."""
    remedy: str = ""
    """Remedy for a missing value."""
    number_is_text: bool = False
    """For texts: a whole number in a JSON file stands for its digits."""
    path: bool = False
    """Texts are paths: ``~`` is expanded, and names longer than file systems take are refused."""
    per_run: bool = False
    """The key determines how or where a run executes, not its results: inference does not take it
    from the stored run, and a resumed run may change it."""


class _Limits(TypedDict, total=False):
    """Arguments of `required`, see `FieldSpec`."""

    choices: tuple[str, ...]
    minimum: float
    above: float
    maximum: float
    below: float
    path: bool
    per_run: bool


class _OptionLimits(_Limits, total=False):
    """Arguments of `option`."""

    former: Mapping[str, str]
    needed: _NEEDED
    remedy: str
    number_is_text: bool


@dataclass(frozen=True)
class Option:
    """One field of a configuration class, as checking and printing see it."""

    name: str
    type: Any
    rule: FieldSpec
    default: Any
    topic: str

    @property
    def entry_class(self) -> type | None:
        """Dataclass of the entries for a list of objects, else None."""
        arguments = typing.get_args(self.type)
        if typing.get_origin(self.type) is list and dataclasses.is_dataclass(arguments[0]):
            return typing.cast(type, arguments[0])
        return None


# Returns T, not Field, so that `x: int = option(3, "...")` type-checks like a plain default, as
# dataclasses.field() itself is declared.
def option(default: T, help: str, **limits: Unpack[_OptionLimits]) -> T:
    """Declare a field with its default, help text and limits (see `FieldSpec`)."""
    metadata = {_METADATA_KEY: FieldSpec(help=help, **limits)}
    if isinstance(default, list):
        return typing.cast(T, dataclasses.field(default_factory=default.copy, metadata=metadata))
    return dataclasses.field(default=default, metadata=metadata)


def required(help: str, *, remedy: str, **limits: Unpack[_Limits]) -> Any:
    """Declare a field without default; `load_config` reports a missing value with the remedy."""
    rule = FieldSpec(help=help, needed="always", remedy=remedy, **limits)
    return dataclasses.field(metadata={_METADATA_KEY: rule})


def override_default(owner: Any, name: str, default: T) -> T:
    """Redeclare the field `name` of the class `owner` with another default."""
    (declared,) = [field for field in dataclasses.fields(owner) if field.name == name]
    rule = dataclasses.replace(declared.metadata[_METADATA_KEY], needed="never", remedy="")
    return dataclasses.field(default=default, metadata={_METADATA_KEY: rule})


def fields_of(config_class: type) -> dict[str, Option]:
    """Fields of a configuration class by name, grouped by (inherited) topic in order of its bases.

    A topic takes the place of its last class, a redeclared field that of its first declaration.
    """
    types = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    # Order the classes by topic, and find the class that declares each field first.
    bases = [base for base in config_class.__mro__ if base not in (config_class, object)]
    owners = [*bases, config_class]
    topics = {owner: getattr(owner, "TOPIC", "") for owner in owners}
    places = {topics[owner]: place for place, owner in enumerate(owners)}
    owners.sort(key=lambda owner: places[topics[owner]])
    home = {
        name: owner
        for owner in [config_class, *bases]  # of several declarations the last one counts
        for name in owner.__dict__.get("__annotations__", {})
    }
    return {
        name: _option(fields[name], types[name], topics[owner])
        for owner in owners
        for name in owner.__dict__.get("__annotations__", {})
        if name in fields and home[name] is owner
    }


def per_run_keys(config_class: type) -> frozenset[str]:
    """Keys that may differ when a run is resumed, see `FieldSpec.per_run`."""
    options = fields_of(config_class).values()
    return frozenset(option.name for option in options if option.rule.per_run)


def _option(field: dataclasses.Field[Any], field_type: Any, topic: str) -> Option:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Option(field.name, field_type, field.metadata[_METADATA_KEY], default, topic)


@dataclass(frozen=True)
class Constraint:
    """One rule: its keys, its condition, its reason, and the remedy.

    It applies only if all values it needs are valid by themselves. Keys of a family's files are
    prefixed with the key that names the file: ``encoder_config.width``.
    """

    keys: tuple[str, ...]
    """The first ones may be patterns, ``*_datasets.*.txt``: the rule holds for each match. The same
    pattern twice is a rule about each pair of matches, different ones are parts of one set."""
    broken: Callable[..., bool]
    """Receives the values of `keys`, in order."""
    reason: str | Callable[..., str]
    """A text, or a function that makes one of the values of `keys`."""
    remedy: str
    training_only: bool = False
    """The rule concerns keys that inference does not read."""

    def explain(self, *values: Any) -> str:
        """Return the reason why these values are not allowed."""
        return self.reason if isinstance(self.reason, str) else self.reason(*values)

    def violations(self, values: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Return the keys of each violation; absent or invalid values violate nothing."""
        if self.training_only and values.get("do_inference"):
            return []
        # Expand the patterns; every plain key must have a valid value.
        others = tuple(key for key in self.keys if "*" not in key)
        if any(key not in values for key in others):
            return []
        candidates = [(*keys, *others) for keys in self._matches(values)]
        return [keys for keys in candidates if self.broken(*(values[key] for key in keys))]

    def _matches(self, keys: Iterable[str]) -> Iterable[tuple[str, ...]]:
        """Keys that the patterns match together; one empty tuple without patterns."""
        patterns = [key for key in self.keys if "*" in key]
        if not patterns:
            return [()]
        matches = fnmatch.filter(keys, patterns[0])
        if len(set(patterns)) < len(patterns):
            return combinations(matches, len(patterns))
        # Different patterns: one match gives the set, the patterns its parts.
        parts = [pattern.rpartition(".")[2] for pattern in patterns]
        entries = [match.rpartition(".")[0] for match in matches]
        return [tuple(f"{entry}.{part}" for part in parts) for entry in entries]
