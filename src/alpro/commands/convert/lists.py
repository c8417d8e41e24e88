"""Captions or questions in other JSON formats, as later projects and hubs publish data sets.

Entries may be listed under a key (``annotations``, ``sentences``, ``data``, ...), come by columns,
by video, or by split. As in COCO, numbers of videos or images may be explained in a list of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alpro.commands.convert.conversion import Conversion, Row
from alpro.commands.convert.sources import SourceFile, Sources
from alpro.datasets.annotations import CAPTIONS, CaptionRow, rows_of
from alpro.datasets.row_parsing import Record, RowError, RowKind
from alpro.datasets.storage.directory_index import without_video_extension
from alpro.errors import InputError, shown
from alpro.tasks.pretraining.annotations import IMAGES
from alpro.tasks.question_answering.annotations import QUESTIONS, QuestionRow
from alpro.user_files import JsonError, parse_json_line

_SPLITS = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validate": "val", "validation": "val", "dev": "val"},
    **{"test": "test", "testing": "test"},
}
"""Name of a split in a source -> name of its output file."""
_NAMES_OF_MEDIA = ("videos", "images")
"""Lists that map numbers to files."""
_FILE_KEYS = ("file_name", "video", "name", "video_name", "path")
_KINDS: dict[str, RowKind[Any]] = {"question": QUESTIONS, "image": IMAGES, "caption": CAPTIONS}
_FORMS = (
    "a list of objects with a caption or question each, such an object by video, columns of equal "
    "length, or any of these under a key or by split"
)


def convert_lists(
    sources: Sources, *, split: str, text_key: str | None = None, video_key: str | None = None
) -> Conversion:
    """Convert all JSON files of the sources.

    Args:
        sources: JSON files.
        split: name of the output file, for sources without splits of their own.
        text_key: the key of captions, if training does not know it.
        video_key: the key of videos' ids or files, likewise.
    """
    # Each file may have several splits, each split entries in any format.
    renamed = {text_key: "caption", video_key: "clip_name"}
    splits: dict[str, list[Row]] = {}
    nouns = set()
    for file in sources.files:
        if not file.name.lower().endswith((".json", ".jsonl")):
            continue
        for name, value in _splits_of(_value_of(file), split=split):
            for number, entry in enumerate(_entries_of(value, file, renamed), start=1):
                noun, rows = _rows_of_entry(entry, file, number)
                nouns.add(noun)
                splits.setdefault(name, []).extend(rows)
    # One kind of rows per conversion: their files differ.
    if not splits:
        sources.refuse("JSON files of captions or questions", of="a list")
    if len(nouns) > 1:
        raise InputError(
            f"--source: {' and '.join(sorted(nouns))}s are mixed; convert one kind at a time"
        )
    return Conversion(nouns.pop(), dict(splits))


def caption_rows(file: SourceFile) -> list[Row]:
    """The captions of a file."""
    entries = enumerate(_entries_of(_value_of(file), file, {}), start=1)
    return [row for number, entry in entries for row in _rows_of_entry(entry, file, number)[1]]


def _value_of(file: SourceFile) -> Any:
    if not file.name.lower().endswith(".jsonl"):
        return file.json(object, expected=_FORMS)
    values = []
    for where, line in file.lines():
        try:
            values.append(parse_json_line(line))
        except JsonError as error:
            raise InputError(f"{where}: not JSON ({error.reason})") from error
    return values


def _splits_of(value: Any, *, split: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value and all(key.lower() in _SPLITS for key in value):
        yield from ((_SPLITS[key.lower()], part) for key, part in value.items())
    else:
        yield split, value


def _entries_of(
    value: Any, file: SourceFile, renamed: Mapping[str | None, str]
) -> Iterator[dict[str, Any]]:
    """The entries of a value in any of the formats, with the keys that training knows."""
    if isinstance(value, dict):
        names = _names_of_media(value)
        value = _listed(value, renamed)
    else:
        names = {}
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{file.where}: {_FORMS} is expected, not {shown(value)}")
    for entry in value:
        known = {renamed.get(key, key): part for key, part in entry.items()}
        for key, number in (("video_id", "video_id"), ("image", "image_id")):
            if isinstance(known.get(number), int | str) and known[number] in names:
                known[key] = names[known[number]]
        yield known


def _names_of_media(value: dict[str, Any]) -> dict[Any, str]:
    """Number -> file name, from lists of videos or images in the file."""
    names = {}
    for key in _NAMES_OF_MEDIA:
        listed: Any = value.get(key)
        for entry in listed if _is_list_of_objects(listed) else ():
            texts = [entry[name] for name in _FILE_KEYS if isinstance(entry.get(name), str)]
            if texts and isinstance(entry.get("id"), int | str):
                names[entry["id"]] = without_video_extension(texts[0])
    return names


def _listed(value: dict[str, Any], renamed: Mapping[str | None, str]) -> Any:
    """The entries of an object: under one of its keys, by columns, or by video."""
    if _fits(value, renamed):
        parts = [list(part.values()) if isinstance(part, dict) else part for part in value.values()]
        if not all(isinstance(part, list) for part in parts):
            return [value]
        if len({len(part) for part in parts}) == 1:
            return [dict(zip(value, cells, strict=True)) for cells in zip(*parts, strict=True)]
    # Under a key: the longest list whose entries fit.
    lists = [part for part in value.values() if part and _is_list_of_objects(part)]
    if fitting := [part for part in lists if _fits(part[0], renamed)]:
        return max(fitting, key=len)
    # By video: the key is the id, the value one caption or several.
    entries = []
    for video, own in value.items():
        for one in own if _is_list_of_objects(own) else [own]:
            row = one if isinstance(one, dict) else {"caption": one}
            entries.append({"clip_name": video, **row})
    return entries


def _fits(entry: dict[str, Any], renamed: Mapping[str | None, str]) -> bool:
    """Return whether the keys are those of a caption or a question."""
    keys = {renamed.get(key, key) for key in entry}
    if "image_id" in keys:
        keys.add("image")
    return any(kind.fits(keys) for kind in _KINDS.values())


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _rows_of_entry(
    entry: dict[str, Any], file: SourceFile, number: int
) -> tuple[str, Sequence[Row]]:
    noun = next((noun for noun, kind in _KINDS.items() if kind.fits(entry)), "caption")
    kind = _KINDS[noun]
    record = Record(f"{file.where}: entry ", number, entry, kind.columns)
    try:
        rows = rows_of(record, kind)
    except RowError as error:
        remedy = "; pass keys with other names as --text_key and --video_key"
        raise InputError(f"{error}{remedy if 'missing' in error.reason else ''}") from error
    return noun, [part for row in rows for part in _as_json(row)]


def _as_json(row: Any) -> list[Row]:
    if isinstance(row, CaptionRow):
        return [{"caption": row.caption, "clip_name": row.video_id}]
    if isinstance(row, QuestionRow):
        question = {"question": row.question, "answer": row.answer}
        return [{**question, "video_id": row.video_id, "answer_type": row.answer_type}]
    return [{"caption": caption, "image": row.video_id} for caption in row.captions]
