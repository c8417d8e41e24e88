"""Reading the published files of a data set from folders and archives, compressed or not.

Files are matched by their published names, regardless of capitals and a further ``.gz``.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from alpro.errors import InputError, listed, shown
from alpro.file_kinds import HEAD_BYTES, why_not_text
from alpro.user_files import (
    MAX_FILE_BYTES,
    JsonError,
    parse_json,
    reason_of,
    why_unreadable,
)

SUFFIXES = (".json", ".jsonl", ".csv", ".txt", ".pkl")
"""Extensions of annotation files; other files of a folder are ignored."""
PACKED = ".gz"
_NUM_NAMED = 8  # files that a message names
_NO_ANNOTATIONS = ("__MACOSX", ".ipynb_checkpoints")  # folders that systems create


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A published file, in a folder or an archive."""

    where: str
    """Its name in messages: a path, or ``archive.zip:member``."""
    name: str
    """Its name without folders and ``.gz``."""
    read: Callable[[], bytes]

    def text(self) -> str:
        """The file's text.

        Raises:
            InputError: it cannot be read, or is not UTF-8.
        """
        data = self.data()
        if reason := why_not_text(data[:HEAD_BYTES]):
            raise InputError(f"{self.where}: {reason}")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.where}: not UTF-8 text ({error}); convert the file to UTF-8"
            ) from error

    def data(self) -> bytes:
        """The file's bytes, unpacked.

        Raises:
            InputError: it cannot be read.
        """
        try:
            data = self.read()
            if len(data) <= MAX_FILE_BYTES:
                return data
        except RuntimeError as error:  # an archive with a password, or a rare compression
            raise InputError(
                f"{self.where}: cannot be unpacked ({error}); unpack it and pass the folder"
            ) from error
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise InputError(
                f"{self.where}: cannot be read ({reason_of(error)}); download the file again"
            ) from error
        raise InputError(f"{self.where}: larger than the limit of {MAX_FILE_BYTES:,} bytes")

    def json(self, kind: type, *, expected: str) -> Any:
        """The file's JSON, which must be of a kind: ``list`` or ``dict``.

        Args:
            kind: of the outermost value.
            expected: the published content, for messages.

        Raises:
            InputError: it is something else.
        """
        try:
            value = parse_json(self.text())
        except JsonError as error:
            place = f" at line {error.line}, column {error.column}" if error.line else ""
            raise InputError(
                f"{self.where}: not JSON ({error.reason}{place}); {expected} is expected. Is the "
                "download complete?"
            ) from error
        if not isinstance(value, kind):
            raise InputError(
                f"{self.where}: {expected} is expected, not a {type(value).__name__} of "
                f"{len(value) if hasattr(value, '__len__') else 1}"
            )
        return value

    def lines(self) -> Iterator[tuple[str, str]]:
        """Position and text of each line, without blank lines and comments (``#``)."""
        for number, line in enumerate(self.text().splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                yield f"{self.where}:{number}", line.strip()

    def table(self, *columns: str) -> list[dict[str, str]]:
        """The rows of a CSV file whose header must have these columns.

        Raises:
            InputError: it cannot be read, or lacks a column.
        """
        reader = csv.DictReader(io.StringIO(self.text(), newline=""))
        try:
            header, rows = list(reader.fieldnames or ()), list(reader)
        except csv.Error as error:
            raise InputError(
                f"{self.where}: not a CSV file ({error}, line {reader.line_num}); download it again"
            ) from error
        if missing := [column for column in columns if column not in header]:
            raise InputError(
                f"{self.where}: no column {missing[0]!r} in the header {header}; the published "
                f"file has {', '.join(columns)} in its first line"
            )
        return [{column: row[column] or "" for column in columns} for row in rows]


class Sources:
    """All source files: single ones, those of folders at any depth, and of zip archives."""

    def __init__(self, given: Sequence[Path]) -> None:
        self._given = given
        self.files = [file for path in given for file in _files_in(path)]

    def find(self, *names: str) -> SourceFile | None:
        """The file with the first of these names that exists.

        Raises:
            InputError: two files have that name.
        """
        for name in names:
            files = [file for file in self.files if file.name.lower() == name.lower()]
            if len(files) > 1:
                both = " and ".join(file.where for file in files[:2])
                raise InputError(f"--source: there is more than one {name}: {both}; pass one")
            if files:
                return files[0]
        return None

    def need(self, *names: str, of: str) -> SourceFile:
        """The file with the first of these names, which must exist.

        Args:
            names: possible names.
            of: the data set, for the message.
        """
        return self.find(*names) or self.refuse(" or ".join(names), of=of)

    def refuse(self, expected: str, *, of: str) -> Any:
        """Report a missing file, and the files that are present.

        Raises:
            InputError: always.
        """
        names = [file.name for file in self.files]
        present = listed(names, most=_NUM_NAMED) or "no file of this kind"
        looked = ", ".join(str(path) for path in self._given)
        raise InputError(
            f"--source: {of} needs {expected}, but {looked} has {present}; pass the "
            "published files under their own names, or the folder they are in"
        )


def field(entry: Any, key: str, kind: type | tuple[type, ...], *, where: str) -> Any:
    """The value of an entry under a key.

    Raises:
        InputError: there is none, or one of another kind.
    """
    if not isinstance(entry, dict):
        message = f"not {type(entry).__name__} ({shown(entry)})"
        raise InputError(f"{where}: an object is expected, {message}")
    if key not in entry:
        raise InputError(f"{where}: no {key!r} (keys: {sorted(map(str, entry))})")
    value = entry[key]
    if not isinstance(value, kind):
        raise InputError(f"{where}: {key!r} is {shown(value)}, of type {type(value).__name__}")
    return value


def _files_in(path: Path) -> Iterator[SourceFile]:
    if path.is_dir():
        # Sorted, so that messages and rows do not depend on the file system.
        walk = os.walk(path, onerror=_refuse_folder)
        for member in sorted(Path(folder, name) for folder, _, names in walk for name in names):
            if _is_wanted(member.relative_to(path).parts) and member.is_file():
                yield _source_file(str(member), member.name, partial(_read_bounded, member))
    elif reason := why_unreadable(path):
        message = reason if path.exists() else "no such file or folder"
        raise InputError(f"--source: {path}: {message}")
    elif path.suffix.lower() == ".zip":
        yield from _files_in_archive(path)
    else:
        yield _source_file(str(path), path.name, partial(_read_bounded, path))


def _refuse_folder(error: OSError) -> None:
    raise InputError(f"--source: {error.filename}: cannot be read: {reason_of(error)}") from error


def _files_in_archive(path: Path) -> Iterator[SourceFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"--source: {path}: not a zip archive ({error})") from error
    for member in sorted(members):
        inner = PurePosixPath(member)
        if _is_wanted(inner.parts):
            yield _source_file(f"{path}:{member}", inner.name, partial(_read_member, path, member))


def _is_wanted(parts: tuple[str, ...]) -> bool:
    name = parts[-1].lower().removesuffix(PACKED)
    hidden = parts[-1].startswith(".") or any(part in _NO_ANNOTATIONS for part in parts)
    return name.endswith(SUFFIXES) and not hidden


def _source_file(where: str, name: str, read: Callable[[], bytes]) -> SourceFile:
    if name.lower().endswith(PACKED):
        return SourceFile(where, name[: -len(PACKED)], partial(_unpacked, read))
    return SourceFile(where, name, read)


def _unpacked(read: Callable[[], bytes]) -> bytes:
    with gzip.open(io.BytesIO(read())) as file:
        return file.read(MAX_FILE_BYTES + 1)


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def _read_member(path: Path, member: str) -> bytes:
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        return file.read(MAX_FILE_BYTES + 1)
