"""How a configuration field is declared (`option`, `required`) and read back (`fields_of`).

The declaration carries what the reader of a config needs: help text, choices and range. Checking,
``--help`` and ``--print_config`` all work from it.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")

_METADATA_KEY = "rule"
_NEEDED = Literal["never", "always", "training", "inference"]


@dataclass(frozen=True, kw_only=True)
class FieldSpec:
    """What is asked of a value, beyond its type."""

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
    """When a missing value is an error."""
    remedy: str = ""
    """What to do about a missing value."""
    number_is_text: bool = False
    """For texts: a whole number of a JSON file means its digits."""
    path: bool = False
    """Texts are paths: ``~`` is expanded, and names longer than file systems take are refused."""
    per_run: bool = False
    """The key says how or where a run executes or what it puts up with, not what it computes: a
    stored run does not impose it on inference, and a run that is continued may change it."""


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
        """The dataclass of the entries, for a field that is a list of them; else None."""
        arguments = typing.get_args(self.type)
        if typing.get_origin(self.type) is list and dataclasses.is_dataclass(arguments[0]):
            return typing.cast(type, arguments[0])
        return None


# Returns T, not Field, so that `x: int = option(3, "...")` type-checks like a plain default, as
# dataclasses.field() itself is declared.
def option(
    default: T,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    former: Mapping[str, str] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    needed: _NEEDED = "never",
    remedy: str = "",
    number_is_text: bool = False,
    path: bool = False,
    per_run: bool = False,
) -> T:
    """Declare a field with its default, help text and limits (see `FieldSpec`)."""
    rule = FieldSpec(
        help=help,
        choices=choices,
        former=former or {},
        minimum=minimum,
        above=above,
        maximum=maximum,
        below=below,
        needed=needed,
        remedy=remedy,
        number_is_text=number_is_text,
        path=path,
        per_run=per_run,
    )
    metadata = {_METADATA_KEY: rule}
    if isinstance(default, list):
        return typing.cast(T, dataclasses.field(default_factory=default.copy, metadata=metadata))
    return dataclasses.field(default=default, metadata=metadata)


def required(
    help: str,
    *,
    remedy: str,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    path: bool = False,
    per_run: bool = False,
) -> Any:
    """Declare a field without default: if it is missing, `load_config` says so, with the remedy."""
    rule = FieldSpec(
        help=help,
        minimum=minimum,
        above=above,
        maximum=maximum,
        needed="always",
        remedy=remedy,
        path=path,
        per_run=per_run,
    )
    return dataclasses.field(metadata={_METADATA_KEY: rule})


def override_default(owner: Any, name: str, default: T) -> T:
    """Declare the field `name` of the class `owner` anew, with another default."""
    (declared,) = [field for field in dataclasses.fields(owner) if field.name == name]
    return dataclasses.field(default=default, metadata=declared.metadata)


def fields_of(config_class: type) -> dict[str, Option]:
    """All fields of a configuration class by name, grouped by topic in order of its bases.

    A topic stands where the last class of that topic does. A field that is declared twice keeps the
    topic and the place of its first declaration.
    """
    types = typing.get_type_hints(config_class)
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    bases = [base for base in config_class.__mro__ if base not in (config_class, object)]
    owners = [*bases, config_class]
    places = {owner.__dict__.get("TOPIC", ""): place for place, owner in enumerate(owners)}
    owners.sort(key=lambda owner: places[owner.__dict__.get("TOPIC", "")])
    home = {
        name: owner
        for owner in [config_class, *bases]  # of several declarations the last one counts
        for name in owner.__dict__.get("__annotations__", {})
    }
    return {
        name: _option(fields[name], types[name], owner.__dict__.get("TOPIC", ""))
        for owner in owners
        for name in owner.__dict__.get("__annotations__", {})
        if name in fields and home[name] is owner
    }


def per_run_keys(config_class: type) -> frozenset[str]:
    """Keys that say how or where a run executes: they may differ when a run is continued."""
    options = fields_of(config_class).values()
    return frozenset(option.name for option in options if option.rule.per_run)


def _option(field: dataclasses.Field[Any], field_type: Any, topic: str) -> Option:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Option(field.name, field_type, field.metadata[_METADATA_KEY], default, topic)
