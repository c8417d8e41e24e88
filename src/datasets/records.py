"""One row of an annotation file as it stands there, and what rows of some kind must have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from src.errors import InputError

Row = TypeVar("Row")

HALF_CHARACTER = "holds half a character (a lone surrogate); write the text anew"
"""What is wrong with a text that is not whole."""


class RowError(InputError):
    """A row is wrong; the message names it."""

    def __init__(self, place: str, number: int, told: str, *, is_empty: bool = False) -> None:
        """Refuse a row.

        Args:
            place: the path, and what stands between it and the row's number.
            number: the row's line, or its place in a list or table.
            told: what is wrong, and what helps.
            is_empty: that is all that is wrong: its text says nothing.
        """
        super().__init__(place, number, told)
        self.place = place
        self.number = number
        self.told = told
        self.is_empty = is_empty

    def __str__(self) -> str:
        return f"{self.place}{self.number}: {self.told}"


@dataclass(slots=True)  # freezing would cost half a second per million
class Record:
    """The named values of one row, and where the row stands, for messages."""

    file: str
    """The path, and what stands between it and the row's number."""
    number: int
    values: dict[str, Any]
    columns: tuple[tuple[str, ...], ...] = ()
    """What a row must have, as of its `RowKind`: a message tells all that is missing at once."""

    def refused(self, told: str, *, is_empty: bool = False) -> RowError:
        """The error that refuses this row; see :class:`RowError`."""
        return RowError(self.file, self.number, told, is_empty=is_empty)

    def has(self, key: str) -> bool:
        """Whether there is a value under this key."""
        return self.values.get(key) is not None

    def text(self, key: str, *other_names: str, if_missing: str = "") -> str:
        """The text under this key, or where the key is absent, under one of its other names.

        Args:
            key: where the text is.
            other_names: where else it may be.
            if_missing: what to say of it to whoever has left it out.

        Raises:
            RowError: where no such value is there, or none that says something.
        """
        value = self.values.get(key)
        if isinstance(value, str) and value.strip() and (value.isascii() or is_whole(value)):
            return value  # nearly always
        name = self._name(key, *other_names)
        value = self.values.get(name)
        if value is None:
            missing = self._missing(key, *other_names)
            raise self.refused(missing + (if_missing and f"; {if_missing}"))
        if not isinstance(value, str):
            remedy = "; put it in quotes" if isinstance(value, int | float) else ""
            if isinstance(value, list):
                remedy = f"; write one row per {name}"
            raise self.refused(
                f"field {name!r} must be text, not {type(value).__name__} ({value!r}){remedy}"
            )
        if not value.strip():
            told = f"field {name!r} is empty; fill it in, or remove the row"
            raise self.refused(told, is_empty=True)
        if not is_whole(value):
            raise self.refused(f"field {name!r} {HALF_CHARACTER}")
        return value

    def identifier(self, key: str, *other_names: str, if_missing: str = "") -> str:
        """The text or whole number under this key or another of its names, as stripped text."""
        value = self.values.get(key)
        if isinstance(value, str) and (stripped := value.strip()):  # nearly always
            return stripped
        name = self._name(key, *other_names)
        value = self.values.get(name)
        if type(value) is int:
            return str(value)
        if isinstance(value, float):  # what tables make of whole numbers where one is missing
            raise self.refused(
                f"field {name!r} is {value!r}, but ids must be text or whole numbers; is one "
                "missing?"
            )
        return self.text(key, *other_names, if_missing=if_missing).strip()

    def _missing(self, *asked: str) -> str:
        """Says that a value is missing, and which else of the columns are."""
        columns = self.columns if asked in self.columns else (asked, *self.columns)
        missing = []
        for names in columns:
            name = self._name(*names)
            if name not in self.values:
                missing.append(with_other_names(repr(name), *names[1:]))
            elif not self.has(name):  # no other column stands in for it
                missing.append(repr(name))
        fields = f"field {missing[0]} is" if len(missing) == 1 else f"fields {_all(missing)} are"
        found = sorted(key for key in self.values if self.has(key))
        return f"{fields} missing (fields found: {found})"

    def _name(self, key: str, *other_names: str) -> str:
        """The first of these names that the row has, even where it says nothing there.

        Another column never stands in for an empty one: it may hold something else. All rows of a
        table have the same names, so that one column is chosen for all of them.
        """
        for name in (key, *other_names):
            if name in self.values:
                return name
        return key


@dataclass(frozen=True, slots=True)
class RowKind(Generic[Row]):
    """What the rows of an annotation file hold."""

    noun: str
    """What to call a row's text in messages."""
    columns: tuple[tuple[str, ...], ...]
    """What a CSV header must name: each column's name, then what it may be called instead."""
    example: str
    """A row as JSON, for messages."""
    parse: Callable[[Record], Row]
    """Checks a record and makes a row of it."""
    optional: tuple[str, ...] = ()
    """What else `parse` looks at where it is there."""
    suffixes: tuple[str, ...] = (".jsonl", ".csv")
    """Files such rows may come in, among those that `annotations` reads."""

    @property
    def names(self) -> set[str]:
        """All names of columns that `parse` looks at."""
        return {name for names in self.columns for name in names} | set(self.optional)


def is_whole(text: str) -> bool:
    """Whether it can be written: JSON may hold half of an emoji, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_other_names(name: str, *other_names: str) -> str:
    """A name as messages give it, with what may stand instead."""
    return f"{name} (or {' or '.join(other_names)})" if other_names else name


def _all(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]])
