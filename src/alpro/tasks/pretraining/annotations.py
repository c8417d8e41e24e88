"""Videos and images with captions, for pretraining.

Videos come in tables, as WebVid's (arXiv 2104.00650): CSV, JSON lines, Parquet, or the original's
pickled DataFrame. Images come in a JSON list, as the original has CC3M, or in JSON lines.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from alpro.datasets.annotations import parsed_rows, read_rows
from alpro.datasets.row_parsing import FILE_COLUMN, Record, RowKind
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.errors import InputError, listed
from alpro.file_kinds import Media
from alpro.user_files import UnreadableFileError, read_lines

MAX_TEXT_LENGTH = 79  # rows with a higher ``txt_len`` are left out, as in the original


@dataclass(frozen=True, slots=True)
class CaptionedItem:
    """A video or image with its captions; an image's id is its path as annotated."""

    video_id: str
    captions: tuple[str, ...]
    media: Media


class CaptionTable(NamedTuple):
    """Items of an annotation file, and the number of rows with too long a text."""

    items: SharedRows[CaptionedItem]
    num_left_out: int


def read_captioned(path: Path, media: Media) -> CaptionTable:
    """Read captioned videos or images; see the functions for each."""
    return read_captioned_videos(path) if media == "video" else read_captioned_images(path)


def read_captioned_videos(path: Path) -> CaptionTable:
    """Read a table with the columns ``video_id`` and ``text``, and perhaps ``txt_len``.

    Columns may also be called ``clip_name``, ``videoid`` or ``video``, and ``caption`` or ``name``.
    Ids may be numbers; a text may be a list, of which one is drawn each time. Rows whose
    ``txt_len`` exceeds ``MAX_TEXT_LENGTH`` are left out and counted.

    Raises:
        InputError: naming file and row, for anything else, such as a row without text.
    """
    # Pack the rows while they are read, and count those that are too long.
    num_left_out = 0

    def short_enough() -> Iterator[CaptionedItem]:
        nonlocal num_left_out
        for row in parsed_rows(path, VIDEOS):
            if row is None:
                num_left_out += 1
            else:
                yield row

    items = pack_rows(short_enough(), CaptionedItem)
    # A file whose rows are all too long has its lengths in another unit.
    if not items:
        raise InputError(
            f"{path}: txt_len is above {MAX_TEXT_LENGTH} in all {num_left_out} rows; give shorter "
            "texts, or leave the column out"
        )
    return CaptionTable(items, num_left_out)


def read_captioned_images(path: Path) -> CaptionTable:
    """Read objects with an ``image`` (its path) and a ``caption`` (a text or a list of texts).

    Raises:
        InputError: naming file and entry, for anything else, such as an entry without caption.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEOS.suffixes and suffix not in IMAGES.suffixes:
        raise InputError(
            f"{path}: annotations of images end in {', '.join(IMAGES.suffixes)}, not in "
            f"{suffix!r}; {_meant('video')}"
        )
    return CaptionTable(read_rows(path, IMAGES, CaptionedItem), 0)


def _meant(media: Media) -> str:
    return f"if this is a set of {media}s, set its media to {media}"


def _video(record: Record) -> CaptionedItem | None:
    """Parse a row; None if its text is too long."""
    if record.has("txt_len") and _number(record, "txt_len") > MAX_TEXT_LENGTH:
        return None
    hint = _meant("image") if "image" in record.values else ""
    texts = record.texts(*_TEXT_NAMES, if_missing=hint)
    return CaptionedItem(record.identifier(*_ID_NAMES, if_missing=hint), texts, "video")


def _number(record: Record, key: str) -> float:
    value = record.values[key]
    try:
        return float(value)
    except (TypeError, ValueError):
        raise record.refused(f"field {key!r} must be a number, not {value!r}") from None


def _image(record: Record) -> CaptionedItem:
    hint = _meant("video") if any(name in record.values for name in _ID_NAMES) else ""
    texts = record.texts("caption", if_missing=hint)
    return CaptionedItem(record.text("image", if_missing=hint).strip(), texts, "image")


_TEXT_NAMES = ("text", "caption", "name")
_ID_NAMES = ("video_id", "clip_name", "videoid", FILE_COLUMN)

VIDEOS = RowKind(
    noun="caption",
    columns=(_TEXT_NAMES, _ID_NAMES),
    example='{"text": "a dog runs", "video_id": "1023"}',
    parse=_video,
    optional=("txt_len",),
)

IMAGES = RowKind(
    noun="image",
    columns=(("image",), ("caption",)),
    example='{"image": "cc3m/0001.jpg", "caption": "a dog on a beach"}',
    parse=_image,
    suffixes=(".json", ".jsonl"),
)


logger = logging.getLogger(__name__)

_REMEDY = "alpro extract-entities makes such a file"


def read_entities(path: Path, *, num_entities: int) -> tuple[str, ...]:
    """Read the first ``num_entities`` entities, in file order; blank lines are skipped.

    Duplicates are kept, as in the original, with a warning.

    Raises:
        InputError: the file is missing, is no text, or holds fewer.
    """
    # Read the entities with their line numbers.
    where = f"entity_file_path: {path}"
    try:
        numbered = list(islice(_entities(path), num_entities))
    except UnreadableFileError as error:
        raise InputError(f"{where}: {error.reason}; {_REMEDY}") from error
    # Check their number, and warn about duplicates.
    if len(numbered) < num_entities:
        raise InputError(
            f"{where}: {len(numbered)} entities, but num_entities is {num_entities}; set "
            f"num_entities to {len(numbered)} at most, or give a longer file: {_REMEDY}"
        )
    _warn_of_duplicates(numbered, where=where)
    return tuple(entity for _, entity in numbered)


def _warn_of_duplicates(numbered: list[tuple[int, str]], *, where: str) -> None:
    lines_of: dict[str, list[str]] = defaultdict(list)
    for number, entity in numbered:
        lines_of[entity].append(str(number))
    duplicates = [
        f"{entity!r} (lines {', '.join(lines)})"
        for entity, lines in lines_of.items()
        if len(lines) > 1
    ]
    if duplicates:
        logger.warning(
            "%s: entities listed more than once (%d) share their probability: %s",
            *(where, len(duplicates), listed(duplicates)),
        )


def _entities(path: Path) -> Iterator[tuple[int, str]]:
    """Number and first word of each line that is not blank."""
    for number, line in enumerate(read_lines(path), start=1):
        if text := line.strip():
            yield number, re.split("[ \t]", text, maxsplit=1)[0]
