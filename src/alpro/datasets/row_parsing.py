"""Rows of annotation files: their fields, and the columns that each kind of row needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from alpro.datasets.storage.directory_index import without_video_extension
from alpro.errors import InputError, shown

Row = TypeVar("Row")

FILE_COLUMN = "video"  # names a video by its file: the id is what comes before the extension
_MAX_ID_BITS = 128
_MAX_DIGITS = 9  # of a count
_MIN_LIKENESS = 0.8  # of a misspelt name, from 0 to 1
# A column -> what it is called elsewhere, the likeliest first.
_NEAR_MISSES = {
    "caption": "captions sentence sentences description desc title text_en label query txt cap",
    "text": "captions sentence sentences description desc title text_en label query txt cap",
    "clip_name": "vid vid_id video_name filename file_name file path video_path youtube_id clip id",
    "video_id": "vid vid_id video_name filename file_name file path video_path youtube_id clip id",
    "question": "q query questions question_text text",
    "answer": "a ans answers label multiple_choice_answer",
    "image": "image_path img img_path filename file_name file path image_id id",
}


class RowError(InputError):
    """A row is wrong; the message names it."""

    def __init__(self, place: str, number: int, reason: str, *, is_empty: bool = False) -> None:
        super().__init__(place, number, reason)
        self.place = place  # the path, and what stands between it and the row's number
        self.number = number  # the row's line, or its place in a list or table
        self.reason = reason  # with the remedy
        self.is_empty = is_empty  # the only fault is an empty text

    def __str__(self) -> str:
        return f"{self.place}{self.number}: {self.reason}"


Refuse = Callable[[RowError], None]
"""Called for a row that is wrong; if it returns, the next row is read."""


@dataclass(slots=True)  # freezing would cost half a second per million
class Record:
    """Values of one row by column, and the row's place, for messages."""

    file: str  # the path, and what stands between it and the row's number
    number: int
    values: dict[str, Any]
    columns: tuple[tuple[str, ...], ...] = ()  # those of its `RowKind`, to list all missing ones

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
        # Return a sound text, which nearly all rows have.
        name = key if key in self.values else self.name_of(key, *other_names)
        value = self.values.get(name)
        if isinstance(value, str) and value.strip():
            return value
        # Name the fault and its remedy.
        if value is None:
            missing = self._missing(key, *other_names)
            raise self.refused(missing + (if_missing and f"; {if_missing}"))
        if isinstance(value, str):
            reason = f"field {name!r} is empty; fill it in, or remove the row"
            raise self.refused(reason, is_empty=True)
        remedy = "; put it in quotes" if isinstance(value, int | float) else ""
        if isinstance(value, list):
            remedy = f"; write one row per {name}"
        reason = f"must be text, not {type(value).__name__} ({shown(value)})"
        raise self.refused(f"field {name!r} {reason}{remedy}")

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

    def count(self, key: str) -> int:
        """The whole number above 0 under this key, perhaps as text; 0 where there is none.

        Raises:
            RowError: it is anything else.
        """
        value = self.values.get(key)
        if value is None:
            return 0
        if isinstance(value, float) and value.is_integer() or isinstance(value, str):
            text = str(value).strip().removesuffix(".0")
            value = int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else value
        if type(value) is int and 0 < value < 10**_MAX_DIGITS:
            return value
        raise self.refused(
            f"field {key!r} must be a whole number above 0, not {shown(value)}; correct it, or "
            "leave it out"
        )

    def _missing(self, *asked: str) -> str:
        columns = self.columns if asked in self.columns else (asked, *self.columns)
        # List all columns without a value, not only the one asked for.
        missing = []
        for names in columns:
            name = self.name_of(*names)
            if name not in self.values:
                missing.append(with_other_names(repr(name), *names[1:]))
            elif not self.has(name):  # no other column stands in for it
                missing.append(repr(name))
        *most, last = missing
        fields = f"fields {', '.join(most)} and {last} are" if most else f"field {last} is"
        filled = sorted(key for key in self.values if self.has(key))
        hint = suggested_names(filled, columns=columns)
        return f"{fields} missing (fields found: {shown(filled)}){hint}"

    def name_of(self, key: str, *other_names: str) -> str:
        """The first of these names that the row has, even with an empty value.

        Another column never stands in for an empty one: it may hold something else. All rows of a
        table have the same names, so that one column is chosen for all of them.
        """
        for name in (key, *other_names):
            if name in self.values:
                return name
        return key


@dataclass(frozen=True, slots=True)
class RowKind(Generic[Row]):
    """Kind of the rows of an annotation file: their columns and their parser."""

    noun: str  # for a row's text, in messages
    columns: tuple[tuple[str, ...], ...]  # required: name of each, then its alternative names
    example: str  # a row as JSON, for messages
    parse: Callable[[Record], Row]
    optional: tuple[str, ...] = ()  # further columns that `parse` reads
    suffixes: tuple[str, ...] = (".jsonl", ".csv", ".tsv", ".json", ".parquet", ".pkl")
    may_list: bool = False  # the first column may hold a list of texts, each of which makes a row

    @property
    def names(self) -> set[str]:
        """All names of columns that `parse` looks at."""
        return {name for names in self.columns for name in names} | set(self.optional)

    def fits(self, names: Container[str]) -> bool:
        """Return whether these name all columns that rows must have."""
        return all(any(name in names for name in column) for column in self.columns)

    def known_columns(
        self, header: Sequence[str], *, where: str, remedy: str = ""
    ) -> dict[str, str]:
        """Map the columns of a table that `parse` reads from their names there to those here.

        Capitals, and spaces in place of underscores, make no difference. Messages name the table,
        ``where``.

        Raises:
            InputError: a column is missing, or is there twice.
        """
        # Match names regardless of their spelling.
        plain = {name: plain_name(name) for name in header}
        known = {name: own for name, own in plain.items() if own in self.names}
        # Refuse a table without a required column.
        if not self.fits(known.values()):
            missing = [column for column in self.columns if not {*column} & {*known.values()}]
            named = (with_other_names(repr(name), *others) for name, *others in missing)
            raise InputError(
                f"{where}: no column {' and no '.join(named)} in the header {shown(list(header))}"
                f"{remedy}{suggested_names(header, columns=self.columns)}"
            )
        # A second column of one name would replace the first.
        counts = Counter(known[name] for name in header if name in known)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise InputError(
                f"{where}: {counts[twice[0]]} columns are called {twice[0]!r} in the header "
                f"{shown(list(header))}; remove or rename all but one"
            )
        return known


def plain_name(name: str) -> str:
    """Normalize the name of a column: no capitals, spaces or marks around it."""
    return name.strip(" \t'\"#\ufeff").casefold().replace(" ", "_").replace("-", "_")


def suggested_names(header: Sequence[str], *, columns: Sequence[Sequence[str]]) -> str:
    """A hint, to be appended to a message, at names that may mean one of the missing columns."""
    hints = []
    plain = {plain_name(name): name for name in reversed(header)}
    for names in columns:
        if set(names) & set(header):
            continue
        near = [name for name in (*names, *_NEAR_MISSES.get(names[0], "").split()) if name in plain]
        near = near or get_close_matches(names[0], plain, n=1, cutoff=_MIN_LIKENESS)
        if near:
            hints.append(f"rename {plain[near[0]]!r} to {names[0]!r} if it is that")
    return "".join(f"; {hint}" for hint in hints)


def with_other_names(name: str, *other_names: str) -> str:
    """Format a column's name with its alternatives, for messages."""
    return f"{name} (or {' or '.join(other_names)})" if other_names else name
