"""Validation of raw JSON values against a configuration class; every problem is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alpro.configs.errors import ConfigIssue, closest_match, shorten, shortened
from alpro.configs.fields import Option, fields_of
from alpro.configs.parsing import MAX_ENTRIES, UnfitError, checked, expectation
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
        if name in raw:
            _read_value(values, option, raw[name], locate, problems, prefix)
        elif option.rule.needed != "always":
            values[name] = _default_of(option)
    return values


def _default_of(option: Option) -> Any:
    default = option.default
    if option.rule.path and isinstance(default, str):
        return with_resources(default)
    return list(default) if isinstance(default, list) else default


def missing_problems(
    config_class: Any, values: Mapping[str, Any], raw: Mapping[str, Any], *, mode: str, place: str
) -> list[ConfigIssue]:
    """Report the keys that `mode` ("training" or "inference") needs and that have no value."""
    problems = []
    for name, option in fields_of(config_class).items():
        # An invalid value is reported by `read_values` already.
        needed = option.rule.needed in ("always", mode)
        given_but_invalid = name in raw and name not in values
        if needed and not given_but_invalid and values.get(name) in (None, [], ""):
            noun = option.rule.help.split(";")[0].split(":")[0]
            text = f"{name} is missing ({noun})."
            problems.append(ConfigIssue(place, text, option.rule.remedy))
    return problems


def _read_value(
    values: dict[str, Any],
    option: Option,
    value: Any,
    locate: Locate,
    problems: list[ConfigIssue],
    prefix: str,
) -> None:
    key = prefix + option.name
    if option.entry_class is not None:
        entries = _read_entries(option, value, locate, problems, key)
        if entries is not None:
            values[option.name] = entries
        return
    try:
        values[option.name] = checked(value, option.type, option.rule)
    except UnfitError as error:
        expected = f"; expected {expectation(option.type, option.rule)}"
        wrong = f", which {error}" if str(error) else expected
        guess = closest_match(value, option.rule.choices) if isinstance(value, str) else None
        remedy = f"Did you mean {guess}?" if guess else ""
        problems.append(_unfit(locate(key), value, wrong, remedy))


def _read_entries(
    option: Option, value: Any, locate: Locate, problems: list[ConfigIssue], key: str
) -> list[Any] | None:
    """Return the dataclass instances of a list of objects; None if any of them has a problem."""
    # The list itself first, then each entry as a config of its own.
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        problems.append(_unfit(locate(key), value, "; expected a list of objects"))
        return None
    if len(value) > MAX_ENTRIES:
        problems.append(_unfit(locate(key), value, f", which has more than {MAX_ENTRIES} entries"))
        return None
    known_problems = len(problems)
    entries = []
    for index, raw in enumerate(value):
        prefix = f"{key}.{index}."
        fields = read_values(
            option.entry_class, raw, locate=locate, problems=problems, prefix=prefix
        )
        for problem in missing_problems(
            option.entry_class, fields, raw, mode="", place=locate(f"{key}.{index}")[0]
        ):
            problems.append(ConfigIssue(problem.place, prefix + problem.text, problem.remedy))
        # Entries alike are often wrong alike: stop after enough problems.
        if len(problems) > known_problems + MAX_REPORTED:
            break
        if len(problems) == known_problems and option.entry_class is not None:
            entries.append(option.entry_class(**fields))
    return entries if len(problems) == known_problems else None


def _unfit(located: tuple[str, str], value: Any, wrong: str, remedy: str = "") -> ConfigIssue:
    place, written = located
    return ConfigIssue(place, f"{written} is {shorten(value)}{wrong}.", remedy)


def _unknown_key(key: str, options: Mapping[str, Option], place: str, prefix: str) -> ConfigIssue:
    guess = closest_match(key, options)
    known = "--help lists all keys." if len(options) > 20 else f"Its keys: {', '.join(options)}."
    remedy = f"Did you mean {guess}?" if guess else known
    named = shortened(prefix + key) if key.isidentifier() else shorten(prefix + key)
    return ConfigIssue(place, f"unknown key {named}.", remedy)
