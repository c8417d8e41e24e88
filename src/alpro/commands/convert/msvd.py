"""MSVD, the Microsoft Research Video Description Corpus (Chen and Dolan, ACL 2011): captions.

They come in four forms: the publishers' CSV and their text file of English captions, the pickle
that retrieval uses (collaborative-experts, CLIP4Clip), and lower-case text files by splits (S2VT).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from alpro.commands.convert.conversion import Conversion, Published, Row
from alpro.commands.convert.sources import SourceFile, Sources
from alpro.datasets.tables import limited_memory
from alpro.errors import InputError, pluralize

IDS = ("youtube", "vid")
"""Ids of clips: ``-4wsuPCjDBc_5_15`` or ``vid1``."""
MAPPING = "youtube_mapping.txt"
CAPTION_PICKLE = "raw-captions.pkl"
CAPTION_TEXT = "AllVideoDescriptions.txt"
CAPTION_COLUMNS = ("VideoID", "Start", "End", "Language", "Description")
CAPTIONS_OF_SPLIT = "sents_{}_lc_nopunc.txt"
LIST_OF_SPLIT = "{}_list.txt"
LANGUAGE = "English"
_DAMAGES = (  # errors of a damaged pickle, or of another file
    *(pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError),
    *(AttributeError, OverflowError),
)
_VIDEOS = {"train": 1200, "val": 100, "test": 670}
_SOURCE = "Venugopalan et al., ICCV 2015; albanie/collaborative-experts, misc/datasets/msvd"

Captions = dict[str, list[str]]
"""Clip -> its captions."""


def convert_msvd(sources: Sources, *, ids: str = "youtube") -> Conversion:
    """Convert the captions, in the splits of 1,200, 100 and 670 clips.

    Args:
        sources: captions in any of the forms, and the splits: ``train_list.txt``,
            ``val_list.txt`` and ``test_list.txt``, or ``youtube_mapping.txt``, whose first 1,200
            clips are for training and whose next 100 for validation.
        ids: the ids of clips, one of `IDS`.
    """
    names = _read_names(sources)
    captions = _read_captions(sources, names)
    clips = _read_splits(sources, captions, names)
    # Ids are the clips' names, or their numbers by the mapping.
    called: Callable[[str], str] = str
    if ids == "vid":
        if not names:
            sources.need(MAPPING, of="--ids vid")
        numbers = {name: number for number, name in names.items()}
        called = numbers.__getitem__
    splits: dict[str, list[Row]] = {
        split: [
            {"caption": caption, "clip_name": called(clip)}
            for clip in own
            for caption in captions.get(clip, ())
        ]
        for split, own in clips.items()
    }
    published = {split: Published(_SOURCE, num_videos=num) for split, num in _VIDEOS.items()}
    conversion = Conversion("caption", dict(splits), published)
    if left_out := set(captions) - set(chain(*clips.values())):
        conversion.notices.append(
            f"{pluralize(len(left_out), 'clip')} with captions in no split: {min(left_out)!r}, ..."
        )
    return conversion


def read_mapping(sources: Sources, *, of: str) -> tuple[dict[str, str], str]:
    """Number -> name of each clip, ``vid1`` -> ``-4wsuPCjDBc_5_15``, and the path of the mapping.

    Args:
        sources: where the mapping is.
        of: the purpose, for messages.
    """
    file = sources.need(MAPPING, of=of)
    names = {}
    for where, line in file.lines():
        parts = line.split()
        if len(parts) != 2 or not parts[1].startswith("vid"):
            raise InputError(f"{where}: a clip's name and number are expected, not {line!r}")
        names[parts[1]] = parts[0]
    return names, file.where


def _read_names(sources: Sources) -> dict[str, str]:
    return read_mapping(sources, of="MSVD")[0] if sources.find(MAPPING) else {}


def _read_splits(
    sources: Sources, captions: Captions, names: dict[str, str]
) -> dict[str, list[str]]:
    """The clips of each split, in the order of the lists."""
    # Splits from lists, from the text files by split, or from the mapping's order.
    lists = {split: sources.find(LIST_OF_SPLIT.format(split)) for split in _VIDEOS}
    if all(lists.values()):
        clips = {split: [line for _, line in file.lines()] for split, file in lists.items() if file}
    elif by_split := _files_by_split(sources):
        clips = {split: list(_read_text(file, names)) for split, file in by_split.items()}
    elif names:
        in_order = sorted(names, key=_number_of)
        ordered = [names[number] for number in in_order]
        first, second = _VIDEOS["train"], _VIDEOS["train"] + _VIDEOS["val"]
        clips = {"train": ordered[:first], "val": ordered[first:second], "test": ordered[second:]}
    else:
        expected = f"train_list.txt, val_list.txt and test_list.txt, or {MAPPING}"
        sources.refuse(expected, of="the splits of MSVD")
    for split, own in clips.items():
        # A clip without a caption means that list and captions do not match.
        if without := [clip for clip in own if clip not in captions]:
            raise InputError(
                f"{pluralize(len(without), 'clip')} of {split} without a caption, such as "
                f"{without[0]!r}; do the lists and the captions belong together?"
            )
    return clips


def _number_of(name: str) -> int:
    digits = name.removeprefix("vid")
    if not digits.isdecimal():
        raise InputError(f"{MAPPING}: {name!r} is not vid and a number")
    return int(digits)


def _read_captions(sources: Sources, names: dict[str, str]) -> Captions:
    if file := sources.find(CAPTION_PICKLE):
        return _read_pickle(file)
    for file in sources.files:
        if file.name.lower().endswith(".csv") and _is_corpus(file):
            return _read_csv(file)
    if file := sources.find(CAPTION_TEXT):
        return _read_text(file, names)
    by_split = _files_by_split(sources)
    if not by_split:
        expected = (
            f"{CAPTION_PICKLE}, {CAPTION_TEXT}, a CSV file with the columns "
            f"{', '.join(CAPTION_COLUMNS)}, or {CAPTIONS_OF_SPLIT.format('train')} and so on"
        )
        sources.refuse(expected, of="MSVD")
    return _merged(_read_text(file, names) for file in by_split.values())


def _files_by_split(sources: Sources) -> dict[str, SourceFile]:
    """The three text files of captions, or none."""
    files = {split: sources.find(CAPTIONS_OF_SPLIT.format(split)) for split in _VIDEOS}
    return {split: file for split, file in files.items() if file} if all(files.values()) else {}


def _merged(parts: Iterable[Captions]) -> Captions:
    return {clip: captions for part in parts for clip, captions in part.items()}


def _is_corpus(file: SourceFile) -> bool:
    header = file.data().split(b"\n", 1)[0].decode("utf-8", errors="replace")
    return all(column in header for column in CAPTION_COLUMNS)


def _read_csv(file: SourceFile) -> Captions:
    captions: Captions = {}
    for row in file.table(*CAPTION_COLUMNS):
        caption = " ".join(row["Description"].split())
        if row["Language"] == LANGUAGE and caption:
            clip = f"{row['VideoID']}_{row['Start']}_{row['End']}"
            captions.setdefault(clip, []).append(caption)
    return captions


def _read_text(file: SourceFile, names: dict[str, str]) -> Captions:
    """Lines of a clip, a space or tab, and a caption; clips may be numbers of the mapping."""
    captions: Captions = {}
    for where, line in file.lines():
        parts = line.split(maxsplit=1)
        if len(parts) != 2:
            raise InputError(f"{where}: a clip and its caption are expected, not {line!r}")
        clip = names.get(parts[0], parts[0])
        captions.setdefault(clip, []).append(" ".join(parts[1].split()))
    return captions


class _PlainUnpickler(pickle.Unpickler):
    """Unpickler of dicts, lists and strings, which refuses anything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def _read_pickle(file: SourceFile) -> Captions:
    expected = "a pickled dict of clips with lists of words"
    try:
        data = file.data()
        with limited_memory(file.where, size=len(data)):
            content = _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except _DAMAGES as error:
        raise InputError(f"{file.where}: {expected} is expected ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(own, list) for own in content.values()):
        raise InputError(f"{file.where}: {expected} is expected, not something else")
    captions = {
        str(clip): [_joined(caption, where=f"{file.where}: {clip}") for caption in own]
        for clip, own in content.items()
    }
    return {clip: [text for text in own if text] for clip, own in captions.items()}


def _joined(caption: Any, *, where: str) -> str:
    words = caption.split() if isinstance(caption, str) else caption
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InputError(f"{where}: a list of words is expected, not {caption!r}")
    return " ".join(words)
