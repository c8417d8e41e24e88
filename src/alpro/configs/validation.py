"""Validation of raw JSON values against a configuration class; every problem is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alpro.configs.errors import ConfigIssue, closest_match, shorten, shortened
from alpro.configs.fields import Option, fields_of
from alpro.configs.parsing import UnfitError, check_list, checked, expectation
from alpro.installation import with_resources

MAX_REPORTED = 20  # mistakes of one kind that are listed

Locate = Callable[[str], tuple[str, str]]
"""Key -> its place for messages, a file or the command line, and the key as written there."""


def read_values(
    config_class: Any,
    raw: Mapping[str, Any],
    *,
    locate: Locate,
    problems: list[ConfigIssue],
    prefix: str = "",
) -> dict[str, Any]:
    """Return the valid values of `raw` with defaults; invalid values and unknown keys are recorded.

    Missing values are left to `missing_problems`.
    """
    # Report unknown keys, the first ones by name.
    options = fields_of(config_class)
    unknown = [key for key in raw if key not in options]
    for key in unknown[:MAX_REPORTED]:
        problems.append(_unknown_key(key, options, locate(prefix + key)[0], prefix))
    if len(unknown) > MAX_REPORTED:
        place = locate(prefix + unknown[-1])[0]
        problems.append(ConfigIssue(place, f"{len(unknown) - MAX_REPORTED} more unknown keys."))
    # Check given values, and fill in defaults.
    values: dict[str, Any] = {}
    for name, option in options.items():
        if name not in raw:
            if option.rule.needed != "always":
                default = option.default
                is_path = option.rule.path and isinstance(default, str)
                values[name] = with_resources(default) if is_path else default
            continue
        value, key = raw[name], prefix + name
        try:
            if option.entry_class is None:
                values[name] = checked(value, option.type, option.rule)
            elif (entries := _read_entries(option, value, locate, problems, key)) is not None:
                values[name] = entries
        except UnfitError as error:
            expected = f"; expected {expectation(option.type, option.rule)}"
            wrong = f", which {error}" if str(error) else expected
            place, written = locate(key)
            guess = closest_match(value, option.rule.choices) if isinstance(value, str) else None
            remedy = f"Did you mean {guess}?" if guess else ""
            problems.append(ConfigIssue(place, f"{written} is {shorten(value)}{wrong}.", remedy))
    return values


def missing_problems(
    config_class: Any,
    values: Mapping[str, Any],
    raw: Mapping[str, Any],
    *,
    mode: str,
    place: str,
    prefix: str = "",
) -> list[ConfigIssue]:
    """Report the keys that `mode` ("training" or "inference") needs and that have no value."""
    problems = []
    for name, option in fields_of(config_class).items():
        # An invalid value is reported by `read_values` already.
        needed = option.rule.needed in ("always", mode)
        given_but_invalid = name in raw and name not in values
        if needed and not given_but_invalid and values.get(name) in (None, [], ""):
            noun = option.rule.help.split(";")[0].split(":")[0]
            text = f"{prefix}{name} is missing ({noun})."
            problems.append(ConfigIssue(place, text, option.rule.remedy))
    return problems


def _read_entries(
    option: Option, value: Any, locate: Locate, problems: list[ConfigIssue], key: str
) -> list[Any] | None:
    """Return the dataclass instances of a list of objects; None if any of them has a problem.

    Raises:
        UnfitError: the value is no such list.
    """
    # The list itself first, then each entry as a config of its own.
    check_list(value)
    if not all(isinstance(entry, dict) for entry in value):
        raise UnfitError
    known_problems = len(problems)
    entries = []
    entry_class: Any = option.entry_class
    for index, raw in enumerate(value):
        prefix = f"{key}.{index}."
        fields = read_values(entry_class, raw, locate=locate, problems=problems, prefix=prefix)
        place = locate(f"{key}.{index}")[0]
        problems += missing_problems(entry_class, fields, raw, mode="", place=place, prefix=prefix)
        # Entries alike are often wrong alike: stop after enough problems.
        if len(problems) > known_problems + MAX_REPORTED:
            break
        if len(problems) == known_problems:
            entries.append(entry_class(**fields))
    return entries if len(problems) == known_problems else None


def _unknown_key(key: str, options: Mapping[str, Option], place: str, prefix: str) -> ConfigIssue:
    guess = closest_match(key, options)
    known = "--help lists all keys." if len(options) > 20 else f"Its keys: {', '.join(options)}."
    remedy = f"Did you mean {guess}?" if guess else known
    named = shortened(prefix + key) if key.isidentifier() else shorten(prefix + key)
    return ConfigIssue(place, f"unknown key {named}.", remedy)
