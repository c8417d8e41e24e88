"""Model family of a config: its detection, and its own keys."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from alpro.configs.fields import Constraint, override_default
from alpro.configs.sources import ConfigSource
from alpro.families.registry import DEFAULT_FAMILY, FAMILIES, family_config

JsonObject = Mapping[str, Any]
_FILE_KEY = re.compile(r"\w+_(config|cfg)")


@dataclass(frozen=True, kw_only=True)
class FamilyConfig:
    """Keys, files and rules of one family; see `alpro.families.registry`."""

    options: type
    """Dataclass of its own keys. It may give keys of all families another default, and have the
    ClassVars ``INERT`` and ``ALIASES`` of an experiment's config."""
    architecture: Mapping[str, Any]
    """Key that names a JSON file of the model, ``..._config`` or ``..._cfg`` -> dataclass of its
    content, with ``TOPIC``, ``INERT``, ``TRAINING_ONLY`` (keys without effect on a trained model),
    ``SIZE_KEYS`` (those that determine the number of parameters), and ``translate`` where files of
    others have other keys: a static method that changes a `ConfigSource`."""
    constraints: tuple[Constraint, ...] = ()
    """Rules about its keys; those of files carry the key of the file."""
    signature: frozenset[str] = frozenset()
    """Keys of this family alone, which identify a file without ``family``."""
    translate: Callable[[Sequence[ConfigSource]], None] = lambda _layers: None
    """Changes the config file and the flags, in this order and after aliases, from keys and values
    of the original into ours; `ConfigSource.move` keeps the user's own key for messages."""

    from_transformers: Callable[[JsonObject, JsonObject], JsonObject | None] = lambda *_: None
    """From ``config.json`` and ``preprocessor_config.json``, or {}, of a transformers folder: keys
    of a config that retrieves with its model, None for others. The first is the family's file."""

    def __post_init__(self) -> None:
        assert all(_FILE_KEY.fullmatch(key) for key in self.architecture), self.architecture


def detect_family(*layers: Mapping[str, Any]) -> str:
    """Return the family name of raw config layers, highest precedence first; it may be unknown."""
    # The key `family` decides; without it a key of one family alone.
    named = next((layer["family"] for layer in layers if "family" in layer), None)
    if named is not None:
        return str(named)
    keys = {key for layer in layers for key in layer}
    signed = (name for name in FAMILIES if family_config(name).signature & keys)
    return next(signed, DEFAULT_FAMILY)


def with_family(config_class: Any, family: str) -> Any:
    """Return an experiment's config class with the keys, aliases and rules of a family."""
    return _with_family(config_class, family)


@cache
def _with_family(config_class: Any, family: str) -> Any:
    own = family_config(family)
    options: Any = own.options
    # The family's options come first among the bases: their defaults override the common ones.
    namespace = {
        "__doc__": config_class.__doc__,
        "__module__": config_class.__module__,
        "TOPIC": config_class.TOPIC,
        "FAMILY": family,
        "INERT": config_class.INERT | getattr(options, "INERT", frozenset()),
        "ALIASES": config_class.ALIASES | getattr(options, "ALIASES", {}),
        "CHECKS": config_class.CHECKS + own.constraints,
    }
    return dataclasses.make_dataclass(
        config_class.__name__,
        [("family", str, override_default(config_class, "family", family))],
        bases=(options, config_class),
        namespace=namespace,
        kw_only=True,
    )
