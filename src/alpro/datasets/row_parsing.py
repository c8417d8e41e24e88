"""One row of an annotation file as it stands there, and what rows of some kind must have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from alpro.datasets.storage.directory_index import without_video_extension
from alpro.errors import InputError, shown

Row = TypeVar("Row")

FILE_COLUMN = "video"
"""The column that names a video by its file: the id is what comes before the extension."""
_MAX_ID_BITS = 128
_MIN_LIKENESS = 0.8  # of a misspelt name, from 0 to 1
_NEAR_MISSES = {
    "caption": "captions sentence sentences description desc title text_en label query txt cap",
    "text": "captions sentence sentences description desc title text_en label query txt cap",
    "clip_name": "vid vid_id video_name filename file_name file path video_path youtube_id clip id",
    "video_id": "vid vid_id video_name filename file_name file path video_path youtube_id clip id",
    "question": "q query questions question_text text",
    "answer": "a ans answers label multiple_choice_answer",
    "image": "image_path img img_path filename file_name file path image_id id",
}
"""A column -> what it is called elsewhere, the likeliest first."""


class RowError(InputError):
    """A row is wrong; the message names it."""

    def __init__(self, place: str, number: int, reason: str, *, is_empty: bool = False) -> None:
        """Refuse a row.

        Args:
            place: the path, and what stands between it and the row's number.
            number: the row's line, or its place in a list or table.
            reason: what is wrong, and what helps.
            is_empty: that is all that is wrong: its text says nothing.
        """
        super().__init__(place, number, reason)
        self.place = place
        self.number = number
        self.reason = reason
        self.is_empty = is_empty

    def __str__(self) -> str:
        return f"{self.place}{self.number}: {self.reason}"


Refuse = Callable[[RowError], None]
"""Called for a row that is wrong; where it returns, reading goes on after the row."""


@dataclass(slots=True)  # freezing would cost half a second per million
class Record:
    """The named values of one row, and where the row stands, for messages."""

    file: str
    """The path, and what stands between it and the row's number."""
    number: int
    values: dict[str, Any]
    columns: tuple[tuple[str, ...], ...] = ()
    """What a row must have, as of its `RowKind`: a message tells all that is missing at once."""

    def refused(self, reason: str, *, is_empty: bool = False) -> RowError:
        """The error that refuses this row; see :class:`RowError`."""
        return RowError(self.file, self.number, reason, is_empty=is_empty)

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
        name = key if key in self.values else self.name_of(key, *other_names)
        value = self.values.get(name)
        if isinstance(value, str) and value.strip():  # nearly always
            return value
        if value is None:
            missing = self._missing(key, *other_names)
            raise self.refused(missing + (if_missing and f"; {if_missing}"))
        if not isinstance(value, str):
            remedy = "; put it in quotes" if isinstance(value, int | float) else ""
            if isinstance(value, list):
                remedy = f"; write one row per {name}"
            reason = f"must be text, not {type(value).__name__} ({shown(value)})"
            raise self.refused(f"field {name!r} {reason}{remedy}")
        reason = f"field {name!r} is empty; fill it in, or remove the row"
        raise self.refused(reason, is_empty=True)

    def texts(self, key: str, *other_names: str, if_missing: str = "") -> tuple[str, ...]:
        """The text under this key or another of its names, or the texts of a list; all stripped.

        Raises:
            RowError: as of `text`; or for an empty list.
        """
        name = key if key in self.values else self.name_of(key, *other_names)
        texts = self.values.get(name)
        if isinstance(texts, str) and (stripped := texts.strip()):  # nearly always
            return (stripped,)
        if not isinstance(texts, list):
            return (self.text(key, *other_names, if_missing=if_missing).strip(),)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise self.refused(
                f"field {name!r} must be text, or a list of texts none of which is empty, not "
                f"{shown(texts)}",
                is_empty=all(isinstance(text, str) for text in texts),
            )
        return tuple(text.strip() for text in texts)

    def identifier(self, key: str, *other_names: str, if_missing: str = "") -> str:
        """The text or whole number under this key or another of its names, as stripped text.

        Under `FILE_COLUMN` it is the name of a file, whose extension is no part of the id.
        """
        name = key if key in self.values else self.name_of(key, *other_names)
        value = self.values.get(name)
        if isinstance(value, str) and (stripped := value.strip()):  # nearly always
            return without_video_extension(stripped) if name == FILE_COLUMN else stripped
        if type(value) is int and value.bit_length() <= _MAX_ID_BITS:
            return str(value)
        if isinstance(value, float):  # what tables make of whole numbers where one is missing
            raise self.refused(
                f"field {name!r} is {value!r}, but ids must be text or whole numbers; is one "
                "missing?"
            )
        return self.text(key, *other_names, if_missing=if_missing)  # which says what is wrong

    def _missing(self, *asked: str) -> str:
        """Says that a value is missing, and which else of the columns are."""
        columns = self.columns if asked in self.columns else (asked, *self.columns)
        missing = []
        for names in columns:
            name = self.name_of(*names)
            if name not in self.values:
                missing.append(with_other_names(repr(name), *names[1:]))
            elif not self.has(name):  # no other column stands in for it
                missing.append(repr(name))
        fields = f"field {missing[0]} is" if len(missing) == 1 else f"fields {_all(missing)} are"
        found = sorted(key for key in self.values if self.has(key))
        hint = suggested_names(found, columns=columns)
        return f"{fields} missing (fields found: {shown(found)}){hint}"

    def name_of(self, key: str, *other_names: str) -> str:
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
    suffixes: tuple[str, ...] = (".jsonl", ".csv", ".tsv", ".json", ".parquet", ".pkl")
    """Files such rows may come in, among those that `annotations` reads."""
    may_list: bool = False
    """The first column may hold a list of texts, of which each makes a row."""

    @property
    def names(self) -> set[str]:
        """All names of columns that `parse` looks at."""
        return {name for names in self.columns for name in names} | set(self.optional)

    def fits(self, names: Container[str]) -> bool:
        """Return whether these name all columns that rows must have."""
        return all(any(name in names for name in column) for column in self.columns)

    def known_columns(
        self, header: Sequence[str], *, where: str, whole: str, remedy: str = ""
    ) -> dict[str, str]:
        """The columns of a table that `parse` looks at: their names there -> their names here.

        Capitals, and spaces in place of underscores, make no difference.

        Args:
            header: all columns of the table.
            where: the table, for messages.
            whole: what names the columns: "the first line".
            remedy: what else may be wrong if one is missing.

        Raises:
            InputError: a column is missing, or is there twice.
        """
        plain = {name: plain_name(name) for name in header}
        known = {name: own for name, own in plain.items() if own in self.names}
        if not self.fits(known.values()):
            missing = next(c for c in self.columns if not set(c) & set(known.values()))
            wanted = ", ".join(with_other_names(*names) for names in self.columns)
            raise InputError(
                f"{where}: no column {missing[0]!r} in the header {shown(list(header))}"
                f"{remedy}; {whole} must name the columns, among them {wanted}"
                + suggested_names(header, columns=self.columns)
            )
        counts = Counter(known[name] for name in header if name in known)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise InputError(
                f"{where}: {counts[twice[0]]} columns are called {twice[0]!r} in the header "
                f"{shown(list(header))}; remove or rename all but one"
            )
        return known


def plain_name(name: str) -> str:
    """The name of a column without capitals, spaces and marks around it."""
    return name.strip(" \t'\"#\ufeff").casefold().replace(" ", "_").replace("-", "_")


def suggested_names(found: Sequence[str], *, columns: Sequence[Sequence[str]]) -> str:
    """A hint, to be appended to a message, where other names may mean what is missing.

    Args:
        found: the names that are there.
        columns: names of what is needed, as of a `RowKind`.
    """
    hints = []
    plain = {plain_name(name): name for name in reversed(found)}
    for names in columns:
        if set(names) & set(found):
            continue
        near = [name for name in (*names, *_NEAR_MISSES.get(names[0], "").split()) if name in plain]
        near = near or get_close_matches(names[0], plain, n=1, cutoff=_MIN_LIKENESS)
        if near:
            hints.append(f"rename {plain[near[0]]!r} to {names[0]!r} if it is that")
    return "".join(f"; {hint}" for hint in hints)


def with_other_names(name: str, *other_names: str) -> str:
    """A name as messages give it, with what may stand instead."""
    return f"{name} (or {' or '.join(other_names)})" if other_names else name


def _all(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]])
