"""Annotation files of video-text retrieval: one caption of one video per row.

Two formats: JSON lines with the keys ``caption`` and ``clip_name`` (the original's), and CSV with a
header naming ``caption`` and ``clip_name`` (or ``video_id``). Further keys and columns are ignored.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.errors import InputError

_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CaptionRow:
    """One caption of one video; the video's id carries no file extension."""

    caption: str
    video_id: str


def read_captions(path: Path) -> list[CaptionRow]:
    """Read the captions of a ``.jsonl`` or ``.csv`` file, in file order; blank lines are skipped.

    Raises:
        InputError: naming file and line, for anything that is not a row of captions.
    """
    readers = {".jsonl": _jsonl_rows, ".csv": _csv_rows}
    suffix = path.suffix.lower()
    if suffix not in readers:
        known = ", ".join(readers)
        raise InputError(f"{path}: annotation files end in {known}, not in {suffix!r}")
    if not path.is_file():
        raise InputError(f"{path}: annotation file not found")
    try:
        rows = list(readers[suffix](path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); convert the file to UTF-8") from error
    if not rows:
        raise InputError(f"{path}: no caption in this file; it must have at least one")
    return rows


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as a hexadecimal string."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _jsonl_rows(path: Path) -> Iterator[CaptionRow]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{where}: not JSON ({error.msg} at column {error.colno}); each line must be "
                    'one object such as {"caption": "a dog runs", "clip_name": "video7"}'
                ) from error
            if not isinstance(record, dict):
                raise InputError(f"{where}: a JSON object is expected, not {type(record).__name__}")
            yield _row(record, video_key="clip_name", where=where)


def _csv_rows(path: Path) -> Iterator[CaptionRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        video_key = "clip_name" if "clip_name" in header else "video_id"
        for column in ("caption", video_key):
            if column not in header:
                raise InputError(
                    f"{path}:1: no column {column!r} in the header {header}; the first line "
                    "must name the columns, among them caption and clip_name (or video_id)"
                )
        try:
            for fields in reader:
                if len(fields) < 2 and not "".join(fields).strip():
                    continue
                where = f"{path}:{reader.line_num}"
                _check_width(fields, header=header, where=where)
                record = dict(zip(header, fields, strict=True))
                yield _row(record, video_key=video_key, where=where)
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error


def _check_width(fields: list[str], *, header: list[str], where: str) -> None:
    """Refuse a row that is not as wide as the header: a comma would cut its caption in two."""
    count = len(fields)
    if count == len(header):
        return
    if count > len(header):
        remedy = "put captions that contain commas in quotes"
    else:
        remedy = "separate the fields with commas, and leave none out"
    noun = "field" if count == 1 else "fields"
    raise InputError(f"{where}: {count} {noun}, but the header names {len(header)}; {remedy}")


def _row(record: dict[str, Any], *, video_key: str, where: str) -> CaptionRow:
    """Check one record: texts that say something under both keys."""
    for key in ("caption", video_key):
        value = record.get(key)
        if value is None:
            found = sorted(str(name) for name, given in record.items() if given is not None)
            raise InputError(f"{where}: field {key!r} is missing (fields found: {found})")
        if not isinstance(value, str):
            raise InputError(
                f"{where}: field {key!r} must be text, not {type(value).__name__} ({value!r})"
            )
        if not value.strip():
            raise InputError(f"{where}: field {key!r} is empty; fill it in, or remove the row")
    return CaptionRow(caption=record["caption"], video_id=record[video_key].strip())
