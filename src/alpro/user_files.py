"""Validated reading of user files, text and JSON, with one-sentence errors.

All files by users or other programs are read here: configs, annotations, label maps, results.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from alpro.errors import InputError, listed
from alpro.file_kinds import HEAD_BYTES, encoding_of, why_not_text

MAX_FILE_BYTES = 1 << 30  # of a text read at once; a million questions take a tenth
MAX_LINE_CHARACTERS = 16 << 20  # of a line; real paragraphs have a few thousand
MAX_DEPTH = 64  # of nested lists and objects; configs have 4
MAX_DIGITS = 40  # of an integer; 64 bits have 20

NO_FILE = "there is no such file"

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_BLOCK_CHARACTERS = 1 << 16


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

    is_syntax = False
    """The text is not JSON."""

    def __init__(self, reason: str, *, line: int | None = None, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        """Counted from 1; None if unknown."""
        self.column = column


def open_file(path: Path) -> IO[bytes]:
    """Open a file in binary mode.

    Raises:
        UnreadableFileError: it cannot be read, or is a folder, device or pipe.
    """
    # Check the kind first: opening a pipe would block.
    try:
        mode = os.stat(path).st_mode
        noun = next((noun for is_kind, noun in _KINDS if is_kind(mode)), None)
        if noun is None:
            return open(path, "rb")
        reason = f"is {noun}, not a file"
    except FileNotFoundError:
        is_link = os.path.islink(path)
        reason = "is a link to a file that does not exist" if is_link else NO_FILE
    except (OSError, ValueError) as error:  # ValueError: a zero character in the name
        reason = f"cannot be read: {reason_of(error)}"
    raise UnreadableFileError(path, reason)


def why_unreadable(path: Path) -> str | None:
    """Reason why a file cannot be read, to follow its path; None if it can."""
    try:
        with open_file(path):
            return None
    except UnreadableFileError as error:
        return error.reason


def path_hint(path: str) -> str:
    """Hint at a path that is meant for a shell or a network."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", path):
        return " Addresses are not opened: download it, and name the file or folder."
    if re.search(r"\$\w|\$\{\w", path):
        return " Variables are not replaced in configs: write the path out, or give it as a flag."
    return ""


def missing_file(key: str, path: Path) -> list[str]:
    """Describe the problem with the file that a key names, if any."""
    if not os.path.lexists(path):
        return [f"{key}: there is no file {path}.{path_hint(str(path))}"]
    reason = why_unreadable(path)
    return [f"{key}: {path} {reason}."] if reason else []


def reason_of(error: Exception) -> str:
    """System message of an error, without the path."""
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a text: UTF-8 with or without a byte-order mark, or UTF-16 with one, as Windows writes.

    Raises:
        UnreadableFileError: the file cannot be read, is not text, or has changed meanwhile.
    """
    # Detect the encoding by the first bytes, then read from the start.
    binary = open_file(path)
    try:
        with binary:
            head = binary.read(HEAD_BYTES)
            if reason := why_not_text(head):
                raise UnreadableFileError(path, reason)
            binary.seek(0)
            before = os.fstat(binary.fileno())
            yield io.TextIOWrapper(cast("io.BufferedReader", binary), encoding_of(head))
            after = os.fstat(binary.fileno())
    except UnicodeError as error:
        reason = f"not UTF-8 text ({error}); convert the file to UTF-8"
        raise UnreadableFileError(path, reason) from error
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read: {reason_of(error)}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        reason = "has changed while it was read; try again when it is written completely"
        raise UnreadableFileError(path, reason)


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
    """Return the lines of a text of any length, with line ends.

    Raises:
        UnreadableFileError: the file cannot be read, is not UTF-8, or has a line that is too long.
    """
    return chain.from_iterable(_blocks_of_lines(path))


def _blocks_of_lines(path: Path) -> Iterator[list[str]]:
    # Blocks of lines are as fast as a file's own iteration, which limits no line.
    with open_text(path) as file:
        # `rest` is a line whose end is in the next block.
        rest, number = "", 1
        while block := file.read(_BLOCK_CHARACTERS):
            text = rest + block
            *lines, rest = text.split("\n")
            if len(rest) > MAX_LINE_CHARACTERS:
                number += len(lines)
                reason = f"line {number} has more than {MAX_LINE_CHARACTERS:,} characters"
                raise UnreadableFileError(path, reason)
            if "\0" in block:
                number += text.count("\n", 0, text.index("\0"))
                raise UnreadableFileError(path, f"line {number} holds a zero character; remove it")
            number += len(lines)
            yield [f"{line}\n" for line in lines]
        if rest:
            yield [rest]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UnreadableFileError: as of `read_text`.
        JsonError: see :func:`parse_json`.
    """
    return parse_json(read_text(path))


def parse_json(text: str) -> Any:
    """Parse JSON within limits.

    Raises:
        JsonError: not JSON; nested deeper than `MAX_DEPTH`; an integer of more than `MAX_DIGITS`
            digits; a duplicate key; a lone surrogate or a zero character in a text.
    """
    # Parse, and locate errors.
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        refusal = JsonError(error.msg, line=error.lineno, column=error.colno)
        refusal.is_syntax = True
        raise refusal from error
    except RecursionError as error:
        raise JsonError(_TOO_DEEP) from error
    except _TooManyDigitsError as error:
        before = text[: text.find(error.digits)]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise JsonError(error.reason, line=line, column=column) from None
    # Refuse deep nesting, and characters that no file can hold.
    _check_depth(value)
    if "\\u" in text:
        _check_characters(value)
    return value


def parse_json_line(line: str) -> Any:
    """Parse one line like :func:`parse_json`, in half the time for flat objects."""
    values = parse_flat_lines([line])
    return parse_json(line) if values is None else values[0]


def parse_flat_lines(lines: Sequence[str]) -> list[Any] | None:
    """Parse lines of flat objects at once, in half the time; None if a line is not flat."""
    # Parse all lines as one list. With as many colons as keys and no bracket, no object contains
    # another or a list, has a duplicate key, or spans two lines.
    text = ",".join(lines)
    try:
        values = _FAST.decode(f"[{text}]")
        num_keys = sum(map(len, values))
    except (ValueError, TypeError, RecursionError):
        return None
    is_flat = (
        len(values) == len(lines)
        and set(map(type, values)) == {dict}
        and text.count(":") == num_keys
        and "\\u" not in text
        and "[" not in text
        and all(line.startswith("{") for line in lines)
    )
    return values if is_flat else None


class _TooManyDigitsError(JsonError):
    """An integer beyond the limit, whose place the parser's hook does not know."""

    def __init__(self, digits: str) -> None:
        super().__init__(f"a number of {len(digits):,} digits; at most {MAX_DIGITS} are read")
        self.digits = digits


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _TooManyDigitsError(digits)
    return int(digits)


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Refuse duplicate keys, of which Python would keep the last.
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = [json.dumps(key) for key, count in counts.items() if count > 1]
        noun = "key" if len(twice) == 1 else "keys"
        raise JsonError(f"{noun} {listed(twice)} occurs more than once")
    return value


def _check_depth(value: Any) -> None:
    # Breadth first: level by level, until one has no lists or objects left.
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
    """Refuse texts that cannot be written to a file or be a file name."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - _SHOWN) : error.start]
        reason = f"half a character (a lone surrogate) after {around!r}; write the text again"
        raise JsonError(reason) from error
    if _ZERO.search(text):
        raise JsonError("a text holds a zero character (\\u0000); remove it")


_ZERO = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # an escape whose backslash is not escaped itself
_SHOWN = 30  # characters before what is wrong
_TOO_DEEP = f"lists or objects nested more than {MAX_DEPTH} deep"
_FAST = json.JSONDecoder(parse_int=_whole_number)
_STRICT = json.JSONDecoder(parse_int=_whole_number, object_pairs_hook=_object_of)
