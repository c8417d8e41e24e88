"""MSR-VTT: captions of 10,000 clips, 20 each (Xu et al., CVPR 2016), in the splits in use.

``full`` is the publishers' own; ``7k`` trains on its training and validation videos, ``9k`` (also
called 1k-A) on all but the test videos, and both are tested on the 1,000 pairs of a video and one
of its captions that JSFusion chose (Yu et al., ECCV 2018).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alpro.commands.convert.conversion import Conversion, Published, Row
from alpro.commands.convert.sources import SourceFile, Sources, field
from alpro.errors import InputError, pluralize

SPLITS = {"7k": "7k", "9k": "9k", "1k-A": "9k", "full": "full"}
"""Name of a split, aliases included -> its canonical name."""
MERGED = "MSRVTT_data.json"
OFFICIAL = ("train_val_videodatainfo.json", "test_videodatainfo.json")
TEST_PAIRS = "MSRVTT_JSFUSION_test.csv"
TRAIN_LISTS = {"7k": "MSRVTT_train.7k.csv", "9k": "MSRVTT_train.9k.csv"}

NUM_CAPTIONS = 20  # of each video
NUM_TEST_PAIRS = 1000
NUM_VAL_OF_7K = 1000  # as many as ClipBERT drew for its own validation
DRAW_SEED = 42
_PAPER = "Xu et al., MSR-VTT, CVPR 2016"
_SOURCES = {
    "7k": "the training and validation videos of " + _PAPER,
    "9k": "albanie/collaborative-experts, misc/datasets/msrvtt/README.md",
}
_PAIRS = "Yu et al., JSFusion, ECCV 2018"
_FULL = {"train": 6513, "val": 497, "test": 2990}
_TRAIN = {"7k": _FULL["train"] + _FULL["val"], "9k": 9000}
_ORIGINS = {"7k": "of test videos that are not tested on", "9k": "of videos not trained on"}
_PUBLISHED_AS = {"train": "train", "validate": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class _Annotations:
    """All videos with their published split and their captions, in file order."""

    split_of: dict[str, str]
    captions: dict[str, list[str]]

    def rows(self, video_ids: Iterable[str]) -> list[Row]:
        return [
            {"caption": caption, "clip_name": video_id}
            for video_id in video_ids
            for caption in self.captions.get(video_id, ())
        ]


def convert_msrvtt(sources: Sources, *, split: str, num_val: int | None = None) -> Conversion:
    """Convert the captions, in one of the `SPLITS`.

    Args:
        sources: the publishers' JSON files, or all in one as ``MSRVTT_data.json``; for all splits
            but ``full`` also the test pairs; lists of training videos are optional. Or
            two lists, as on hubs: ``msrvtt_train_9k.json`` and ``msrvtt_test_1k.json``.
        split: one of `SPLITS`.
        num_val: videos with one caption each for ``val.jsonl``: of ``7k`` drawn from the test
            videos that are not tested on (1,000 where ``None``), of ``9k`` taken out of training
            (none where ``None``).
    """
    split = SPLITS[split]
    if split == "full":
        if num_val is not None:
            raise InputError("--num_val: the full split has a validation split of its own")
        return _full(_read(sources, needs_test=True))
    # Lists of hubs are a fallback for the published files.
    copies = _find_copies(sources, split=split)
    annotations, train, test = (
        _read_copies(*copies) if copies else _read_published(sources, split=split)
    )
    return _tested_on_pairs(annotations, train, test, split=split, num_val=num_val)


def _full(annotations: _Annotations) -> Conversion:
    rows = {split: annotations.rows(_published_in(annotations, split)) for split in _FULL}
    published = {split: Published(_PAPER, num * NUM_CAPTIONS, num) for split, num in _FULL.items()}
    return Conversion("caption", dict(rows), published)


def _find_copies(sources: Sources, *, split: str) -> tuple[SourceFile, SourceFile] | None:
    """The lists for training and testing of hubs and later projects, without the published files.

    Their names are like ``msrvtt_train_9k.json``, and they have one entry for each video.
    """
    if any(sources.find(name) for name in (MERGED, *OFFICIAL)):
        return None
    lists = [file for file in sources.files if file.name.lower().endswith(".json")]
    train, test = (
        [file for file in lists if part in file.name.lower() and mark in file.name.lower()]
        for part, mark in (("train", split), ("test", "1k"))
    )
    return (train[0], test[0]) if len(train) == len(test) == 1 else None


def _read_copies(train: SourceFile, test: SourceFile) -> tuple[_Annotations, list[str], list[Row]]:
    from alpro.commands.convert.lists import caption_rows  # loads torch

    captions: dict[str, list[str]] = {}
    for row in caption_rows(train):
        captions.setdefault(row["clip_name"], []).append(row["caption"])
    pairs = caption_rows(test)
    if shared := captions.keys() & {row["clip_name"] for row in pairs}:
        raise InputError(f"{test.where}: {min(shared)!r} is also in {train.where}")
    return _Annotations(dict.fromkeys(captions, "train"), captions), list(captions), pairs


def _read_published(sources: Sources, *, split: str) -> tuple[_Annotations, list[str], list[Row]]:
    annotations = _read(sources, needs_test=split == "9k")
    pairs = sources.need(TEST_PAIRS, of=f"MSR-VTT {split}")
    test = _read_pairs(pairs)
    tested = {row["clip_name"] for row in test}
    train = _training_videos(sources, annotations, split=split, tested=tested)
    if split == "9k" and (unknown := tested - annotations.split_of.keys()):
        raise InputError(f"{pairs.where}: {min(unknown)!r} is not in the JSON files")
    return annotations, train, test


def _tested_on_pairs(
    annotations: _Annotations,
    train: list[str],
    test: list[Row],
    *,
    split: str,
    num_val: int | None,
) -> Conversion:
    # Validation videos of 7k are unused test videos, of 9k training videos.
    pool, default = train, 0
    if split == "7k":
        used = {row["clip_name"] for row in test}.union(train)
        pool = [video_id for video_id in annotations.split_of if video_id not in used]
        default = min(NUM_VAL_OF_7K, len(pool))
    val = _draw(pool, default if num_val is None else num_val, annotations=annotations)
    # Videos drawn for validation leave the training set.
    held_out = {row["clip_name"] for row in val}
    num_train = _TRAIN[split] - len(held_out.intersection(train))
    train = [video_id for video_id in train if video_id not in held_out]
    conversion = Conversion(
        "caption",
        {"train": annotations.rows(train), "test": test},
        {
            "train": Published(_SOURCES[split], num_train * NUM_CAPTIONS, num_train),
            "test": Published(_PAIRS, NUM_TEST_PAIRS, NUM_TEST_PAIRS),
        },
    )
    if val:
        conversion.splits["val"] = val
        conversion.notices.append(f"val.jsonl: {_ORIGINS[split]}, one caption each, drawn by seed")
    elif num_val is None:
        conversion.notices.append(_no_validation(split))
    return conversion


def _no_validation(split: str) -> str:
    if split == "9k":
        return (
            "no val.jsonl: this split has no validation videos, and published results were "
            "selected on the test split; hold some training videos out with --num_val"
        )
    return f"no val.jsonl: its videos are in {OFFICIAL[1]} (or {MERGED}); pass that file too"


def _draw(pool: Sequence[str], num: int, *, annotations: _Annotations) -> list[Row]:
    """One caption each of some videos, drawn with a fixed seed."""
    if num > len(pool):
        raise InputError(
            f"--num_val: {num:,} requested, but only {pluralize(len(pool), 'video')} available"
        )
    generator = random.Random(DRAW_SEED)
    chosen = set(generator.sample(sorted(pool), num))
    videos = [video_id for video_id in pool if video_id in chosen]
    return [generator.choice(rows) for one in videos if (rows := annotations.rows([one]))]


def _training_videos(
    sources: Sources, annotations: _Annotations, *, split: str, tested: set[str]
) -> list[str]:
    """The videos of the published list; without it, the same set from the JSON files."""
    listed = sources.find(TRAIN_LISTS[split])
    if listed is None:
        if split == "9k":
            return [video_id for video_id in annotations.split_of if video_id not in tested]
        return [*_published_in(annotations, "train"), *_published_in(annotations, "val")]
    videos = [row["video_id"].strip() for row in listed.table("video_id")]
    for video_id in videos:
        if video_id not in annotations.captions:
            raise InputError(f"{listed.where}: {video_id!r} has no captions in the JSON files")
        if video_id in tested:
            raise InputError(f"{listed.where}: {video_id!r} is also one of the test pairs")
    return videos


def _published_in(annotations: _Annotations, split: str) -> list[str]:
    return [video_id for video_id, own in annotations.split_of.items() if own == split]


def _read_pairs(file: SourceFile) -> list[Row]:
    return [
        {"caption": row["sentence"].strip(), "clip_name": row["video_id"].strip()}
        for row in file.table("video_id", "sentence")
    ]


def _read(sources: Sources, *, needs_test: bool) -> _Annotations:
    merged = sources.find(MERGED)
    if merged:
        files = [merged]
    else:
        needed = OFFICIAL if needs_test else OFFICIAL[:1]
        present = [sources.find(name) for name in OFFICIAL]
        if missing := [name for name, file in zip(needed, present, strict=False) if file is None]:
            sources.refuse(
                f"{' and '.join(missing)} (or {MERGED}), or msrvtt_train_9k.json and "
                "msrvtt_test_1k.json",
                of="MSR-VTT",
            )
        files = [file for file in present if file]
    split_of: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for file in files:
        _read_file(file, split_of=split_of, captions=captions)
    return _Annotations(split_of, captions)


def _read_file(
    file: SourceFile, *, split_of: dict[str, str], captions: dict[str, list[str]]
) -> None:
    expected = 'an object with the lists "videos" and "sentences"'
    content = file.json(dict, expected=expected)
    # Splits of the videos, then their captions.
    for number, video in enumerate(field(content, "videos", list, where=file.where)):
        where = f"{file.where}: video {number}"
        own = field(video, "split", str, where=where)
        if own not in _PUBLISHED_AS:
            raise InputError(f"{where}: split {own!r} is not one of {', '.join(_PUBLISHED_AS)}")
        video_id = field(video, "video_id", str, where=where)
        if video_id in split_of:
            raise InputError(f"{where}: {video_id!r} is listed a second time")
        split_of[video_id] = _PUBLISHED_AS[own]
    for number, sentence in enumerate(field(content, "sentences", list, where=file.where)):
        where = f"{file.where}: sentence {number}"
        caption = field(sentence, "caption", str, where=where).strip()
        if caption:
            captions.setdefault(field(sentence, "video_id", str, where=where), []).append(caption)
