"""Files that users name: opened or refused with one sentence, and JSON within limits.

Everything that a user or another program may have written is read through this module: configs,
annotations, label maps, stored arguments and results.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from src.errors import InputError

MAX_FILE_BYTES = 1 << 30  # of a text that is read whole; a million questions take a tenth of it
MAX_LINE_CHARACTERS = 16 << 20  # of a line; the longest real paragraph has a few thousand
MAX_DEPTH = 64  # of lists and objects in one another; configs have 4
MAX_DIGITS = 40  # of a whole number; 64 bits have 20

NO_FILE = "there is no such file"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableFileError(InputError):
    """A file that cannot be read; the message names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class JsonError(ValueError):
    """Text that is not JSON, or JSON beyond the limits of this module."""

    def __init__(self, reason: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        """Counted from 1; None where the parser does not say."""
        self.column = column


def why_unreadable(path: Path) -> str | None:
    """Reason why a path cannot be read as a file, in words that follow the path; None if it can."""
    try:
        mode = os.stat(path).st_mode
        for is_kind, noun in _KINDS:
            if is_kind(mode):
                return f"is {noun}, not a file"
        with open(path, "rb"):
            return None
    except FileNotFoundError:
        is_link = os.path.islink(path)
        return "is a link to a file that does not exist" if is_link else NO_FILE
    except (OSError, ValueError) as error:  # ValueError: a zero character in the name
        return f"cannot be read: {reason_of(error)}"


def reason_of(error: Exception) -> str:
    """The system's words for what went wrong, without the path."""
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def open_text(path: Path, *, newline: str | None = None) -> Iterator[IO[str]]:
    """Open a UTF-8 text, with or without a byte-order mark.

    Args:
        path: the file.
        newline: as for `open`; "" for the csv module.

    Raises:
        UnreadableFileError: the file cannot be read, or turns out not to be UTF-8.
    """
    if reason := why_unreadable(path):
        raise UnreadableFileError(path, reason)
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text ({error}); convert the file to UTF-8"
        raise UnreadableFileError(path, reason) from error
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read: {reason_of(error)}") from error


def read_text(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> str:
    """Read a whole UTF-8 text.

    Raises:
        UnreadableFileError: the file cannot be read, is not UTF-8, or has more than `max_bytes`.
    """
    with open_text(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > max_bytes:
            reason = f"has {size:,} bytes, more than the {max_bytes:,} that are read at once"
            raise UnreadableFileError(path, reason)
        return file.read()


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text with their line ends; the file may be of any length.

    Raises:
        UnreadableFileError: the file cannot be read, is not UTF-8, or has a line of more than
            `MAX_LINE_CHARACTERS`.
    """
    with open_text(path) as file:
        read = file.readline
        number = 0
        while line := read(MAX_LINE_CHARACTERS):
            number += 1
            if len(line) == MAX_LINE_CHARACTERS:
                reason = f"line {number} has more than {MAX_LINE_CHARACTERS:,} characters"
                raise UnreadableFileError(path, reason)
            yield line


def read_json(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        UnreadableFileError: the file cannot be read or is larger than `max_bytes`.
        JsonError: see :func:`parse_json`.
    """
    return parse_json(read_text(path, max_bytes=max_bytes))


def parse_json(text: str) -> Any:
    """Parse JSON that somebody else has written.

    Raises:
        JsonError: not JSON; nested deeper than `MAX_DEPTH`; a whole number of more than
            `MAX_DIGITS` digits; a key that an object has twice; half a character (a lone
            surrogate) or a zero character in a text.
    """
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(error.msg, line=error.lineno, column=error.colno) from error
    except RecursionError as error:
        raise JsonError(_TOO_DEEP) from error
    except _TooManyDigitsError as error:
        before = text[: text.find(error.digits)]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise JsonError(error.reason, line=line, column=column) from None
    _check_depth(value)
    if "\\u" in text:
        _check_characters(value)
    return value


def parse_json_line(line: str) -> Any:
    """Parse one line of JSON as :func:`parse_json` does, in half the time for flat objects.

    Raises:
        JsonError: as there.
    """
    try:
        value, end = _FAST.raw_decode(line)
    except (ValueError, RecursionError):  # not JSON, or spaces come first
        return parse_json(line)
    # An object with no more colons than keys has no key twice.
    is_plain = (
        type(value) is dict
        and line.count(":") == len(value)
        and "\\u" not in line
        and line[end:] in ("\n", "")
    )
    return value if is_plain else parse_json(line)


class _TooManyDigitsError(JsonError):
    """A number beyond the limit, which the parser's hook is given without its place."""

    def __init__(self, digits: str) -> None:
        super().__init__(f"a number of {len(digits):,} digits; at most {MAX_DIGITS} are read")
        self.digits = digits


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _TooManyDigitsError(digits)
    return int(digits)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = [json.dumps(key) for key, count in counts.items() if count > 1]
        noun = "key" if len(twice) == 1 else "keys"
        more = ", ..." if len(twice) > _MAX_NAMED else ""
        raise JsonError(f"{noun} {', '.join(twice[:_MAX_NAMED])}{more} occurs more than once")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            part
            for whole in level
            if isinstance(whole, dict | list)
            for part in (whole.values() if isinstance(whole, dict) else whole)
        ]
        if not level:
            return
    raise JsonError(_TOO_DEEP)


def _check_characters(value: Any) -> None:
    """Refuse texts that cannot be written to a file or used as a name of one."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - _SHOWN) : error.start]
        reason = f"half a character (a lone surrogate) after {around!r}; write the text anew"
        raise JsonError(reason) from error
    if "\\u0000" in text and "\0" in "".join(_texts_of(value)):
        raise JsonError("a text holds a zero character (\\u0000); remove it")


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for part in value.values():
            yield from _texts_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts_of(part)


_MAX_NAMED = 5
_SHOWN = 30  # characters before what is wrong
_TOO_DEEP = f"lists or objects nested more than {MAX_DEPTH} deep"
_FAST = json.JSONDecoder(parse_int=_whole_number)
_STRICT = json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=_object_of)
