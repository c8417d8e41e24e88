"""Parsing and validation of single values, from flags and from JSON files.

Supported types: bool, int, float, str, ``X | None``, ``list[X]``, ``tuple[X, X]`` and
``str | dict[str, str]``.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import types
import typing
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from alpro.configs.fields import FieldSpec
from alpro.installation import with_resources

_BOOLEANS = {"0": False, "1": True, "false": False, "true": True}
_NULLS = ("null", "none", "")
_MAX_ENTRIES = 1000  # of a list
_MAX_TEXT = 1000  # characters of a text that is no path
_MAX_NAME = 255  # bytes of each part of a path, by the file systems in use
_MAX_PATH = 4095  # bytes of a path on Linux


class UnfitError(ValueError):
    """A value that does not fit its field; the message, if any, adds to the field's expectation."""


def is_sequence(expected: Any) -> bool:
    """Return whether a field takes several values (after its flag, or as a JSON list)."""
    return typing.get_origin(_without_none(expected)) in (list, tuple)


def takes_table(expected: Any) -> bool:
    """Return whether a field takes an object of texts as well as a text."""
    return dict[str, str] in typing.get_args(expected)


def from_texts(texts: Sequence[str], expected: Any) -> Any:
    """Convert the words after a flag to a JSON value.

    Raises:
        UnfitError: a word is not of the field's type, or their number is wrong.
    """
    if _takes_none(expected) and len(texts) == 1 and texts[0].lower() in _NULLS:
        return None
    expected = _without_none(expected)
    if is_sequence(expected):
        element = typing.get_args(expected)[0]
        return [_from_text(text, element) for text in texts]
    if len(texts) != 1:
        raise UnfitError
    return _from_text(texts[0], expected)


def _from_text(text: str, expected: Any) -> Any:
    if expected is bool:
        if text.lower() not in _BOOLEANS:
            raise UnfitError
        return _BOOLEANS[text.lower()]
    if expected in (int, float):
        try:
            return expected(text)
        except ValueError as error:
            raise UnfitError from error
    return text


def checked(value: Any, expected: Any, rule: FieldSpec) -> Any:
    """Return `value` in its field's type (lists become tuples where the length is fixed).

    Raises:
        UnfitError: wrong type, length, choice or range.
    """
    if _takes_none(expected) and value in (None, ""):
        return None
    expected = _without_none(expected)
    if is_sequence(expected):
        return _checked_sequence(value, expected, rule)
    if typing.get_origin(expected) is not types.UnionType:
        return _checked_scalar(value, expected, rule)
    # A text, or an object of texts.
    if isinstance(value, dict):
        return {key: _checked_scalar(entry, str, rule) for key, entry in value.items()}
    return _checked_scalar(value, str, rule)


def check_list(value: Any) -> None:
    """Raise UnfitError for a value that is no list, or a list of too many entries."""
    if not isinstance(value, list | tuple):
        raise UnfitError
    if len(value) > _MAX_ENTRIES:
        raise UnfitError(f"has more than {_MAX_ENTRIES} entries")


def _checked_sequence(value: Any, expected: Any, rule: FieldSpec) -> Any:
    # Every element must fit; a tuple has a fixed length.
    check_list(value)
    arguments = typing.get_args(expected)
    elements = [_checked_scalar(element, arguments[0], rule) for element in value]
    if typing.get_origin(expected) is list:
        return elements
    if len(elements) != len(arguments):
        raise UnfitError
    return tuple(elements)


def _checked_scalar(value: Any, expected: Any, rule: FieldSpec) -> Any:
    # The type first; texts may have a former name; then choices and range.
    if rule.number_is_text and type(value) is int:
        value = str(value)
    value = _typed(value, expected)
    if expected is str:
        value = _checked_text(value, is_path=rule.path)
        value = rule.former.get(value, value)
    if rule.choices and value not in rule.choices:
        raise UnfitError
    if expected in (int, float) and not _in_range(value, rule):
        raise UnfitError
    return value


def _typed(value: Any, expected: Any) -> Any:
    if expected is bool and isinstance(value, int) and value in (0, 1):
        return bool(value)
    if expected is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:  # a whole number of more than 308 digits
            raise UnfitError from error
    if expected is str and isinstance(value, str) and value.strip():
        return value
    raise UnfitError


def _checked_text(text: str, *, is_path: bool) -> str:
    """Return a text that can be written to UTF-8 files; of a path expand ``~``."""
    # Surrogates, as of undecodable bytes on the command line, cannot be written.
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnfitError(
            "is not UTF-8 text, as the files of a run are; rename what it names, or give it a link"
        ) from error
    if not is_path:
        if len(text) > _MAX_TEXT:
            raise UnfitError(f"has more than {_MAX_TEXT} characters")
        if any(unicodedata.category(character) == "Cc" for character in text):
            raise UnfitError("has a control character, which a log or a terminal would obey")
        return text
    # Refuse names that no file system takes: opening them would fail with a traceback.
    path = with_resources(os.path.expanduser(text))
    longest = max(len(part.encode()) for part in path.split("/"))
    if longest > _MAX_NAME:
        raise UnfitError(
            f"has a name of {longest} bytes, more than the {_MAX_NAME} that file systems take"
        )
    if len(path.encode()) > _MAX_PATH:
        raise UnfitError(f"has more than the {_MAX_PATH} bytes that a path can have")
    return path


def _in_range(value: float, rule: FieldSpec) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if 0 < abs(value) < sys.float_info.min:  # denormals, which `launch_engine` flushes to zero
        value = 0.0
    return all(fits(value, limit) for limit, fits, _ in _limits(rule))


def expectation(expected: Any, rule: FieldSpec) -> str:
    """Describe the accepted values of a field: "a whole number, at least 1"."""
    suffix = " or null" if _takes_none(expected) else ""
    expected = _without_none(expected)
    if rule.choices:
        return f"one of {', '.join(rule.choices)}{suffix}"
    # The type, a list's length, and the limits.
    limits = " and ".join(
        f"{words} {limit if isinstance(limit, int) else f'{limit:g}'}"
        for limit, _, words in _limits(rule)
    )
    if is_sequence(expected):
        arguments = typing.get_args(expected)
        count = f"{len(arguments)} " if typing.get_origin(expected) is tuple else ""
        each = f", each {limits}" if limits else ""
        return f"a list of {count}{_noun(arguments[0], plural=True)}{each}{suffix}"
    return f"{_noun(expected)}{', ' + limits if limits else ''}{suffix}"


def _noun(expected: Any, *, plural: bool = False) -> str:
    singular_and_plural = {
        bool: ("true or false (or 1 or 0)", "truth values"),
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("text that is not empty", "texts"),
    }
    text_or_table, entries = "text, or an object of texts", "objects"
    return singular_and_plural.get(expected, (text_or_table, entries))[plural]


def _limits(rule: FieldSpec) -> list[tuple[float, Callable[[float, float], bool], str]]:
    """Limits of a field, each with its comparison and its words."""
    limits = [
        (rule.minimum, operator.ge, "at least"),
        (rule.above, operator.gt, "above"),
        (rule.maximum, operator.le, "at most"),
        (rule.below, operator.lt, "below"),
    ]
    return [(limit, fits, words) for limit, fits, words in limits if limit is not None]


def _takes_none(expected: Any) -> bool:
    return type(None) in typing.get_args(expected)


def _without_none(expected: Any) -> Any:
    if typing.get_origin(expected) not in (typing.Union, types.UnionType):
        return expected
    rest = [argument for argument in typing.get_args(expected) if argument is not type(None)]
    return rest[0] if len(rest) == 1 else rest[0] | rest[1]
