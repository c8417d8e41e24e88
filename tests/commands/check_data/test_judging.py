"""From what was measured of videos to findings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alpro.commands.check_data.media import Media
from alpro.commands.check_data.probe import Item, Probe
from alpro.commands.check_data.probe_pool import Probed
from alpro.commands.check_data.sources import CheckedSet, Sampling, Split
from alpro.commands.check_data.verdicts import format_size, judge, judge_contents, judge_splits

SOUND = Probe(
    "readable", num_bytes=1000, width=64, height=48, declared_frames=50, declared_seconds=5.0,
    num_frames=50, seconds=5.0, brightness=90.0, contrast=40.0, change=10.0,
)  # fmt: skip
SAMPLING = Sampling(num_frames=8, counts_as_short=True)


def set_of(split: Split, annotations: str = "") -> CheckedSet:
    path = Path(annotations or f"{split}.jsonl")
    return CheckedSet(f"{split}_datasets.0", split, split, path, "captions", Path("videos"))


def probed(video_id: str = "v", *splits: Split, **changes: Any) -> Probed:
    path = Path("videos") / f"{video_id}.mp4"
    item = Item(str(path), video_id, Path("videos"), path, ".mp4", is_image=False)
    return Probed(item, replace(SOUND, **changes), tuple(map(set_of, splits)))


def kinds(*videos: Probed) -> list[str]:
    return [finding.kind for finding in judge(videos, sampling=SAMPLING)]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"verdict": "unreadable"}, "unreadable"),
        ({"verdict": "cut_off"}, "cut_off"),
        ({"verdict": "empty_file"}, "empty_file"),
        ({"trouble": "1 packet is corrupt"}, "decode_errors"),
        ({"declared_frames": 56}, "wrong_header"),
        ({"declared_frames": 55}, None),
        ({"declared_seconds": 6.0}, "wrong_header"),
        ({"num_frames": 7, "declared_frames": 7}, "too_short"),
        ({"num_frames": 8, "declared_frames": 8}, None),
        ({"contrast": 1.0}, "no_picture"),
        ({"change": 0.1}, "no_motion"),
        ({"change": None}, None),
        ({"width": 200}, "odd_shape"),
        ({"height": 200}, "odd_shape"),
        ({"width": None, "height": None, "seconds": None, "num_bytes": None}, None),
    ],
)
def test_single_videos_get_their_findings(changes: dict[str, Any], kind: str | None) -> None:
    assert kinds(probed(**changes)) == ([kind] if kind else [])


def test_a_video_unlike_many_others_is_reported() -> None:
    usual = [probed(f"v{number}", seconds=4.0 + number % 3) for number in range(20)]
    long = probed("long", seconds=60.0, declared_seconds=60.0, num_bytes=10)
    found = [
        (one.kind, one.subject, one.message) for one in judge([*usual, long], sampling=SAMPLING)
    ]
    assert found[-2:] == [
        ("odd_duration", "long", "60.0 s; the median is 5.0 s"),
        ("odd_size", "long", "10 bytes; the median is 1 kB"),
    ]
    assert "odd_duration" not in kinds(*usual[:10], long)  # too few to compare


def test_equal_contents_in_training_and_evaluation_are_a_leak() -> None:
    videos = [
        *(probed("a", "train", digest="x"), probed("b", "test", digest="x")),
        *(probed("c", "train", digest="y"), probed("d", "train", digest="y")),
        probed("e", "val", digest="z"),
    ]
    told = [(one.kind, one.subject, one.message) for one in judge_contents(videos)]
    assert told == [
        ("shared_content", "b", "same content as a in train (train_datasets.0)"),
        ("duplicate", "c", "same content in 1 other file: d"),
    ]


def test_large_files_are_compared_as_a_whole(tmp_path: Path) -> None:
    videos = []
    for name, content in {"a": b"1", "b": b"1", "c": b"2"}.items():
        one = probed(name, digest="sampled:1:x", num_bytes=1)
        path = tmp_path / name
        path.write_bytes(content)
        videos.append(replace(one, item=replace(one.item, path=path)))
    told = [(one.subject, one.message) for one in judge_contents(videos)]
    assert told == [("a", "same content in 1 other file: b")]


def test_splits_that_share_videos_are_reported() -> None:
    sets = [set_of("train"), set_of("val"), set_of("test")]
    ids = {"train": "ab", "val": "bc", "test": "cd"}
    media = Media(ids_of_set={one.key: {name: name for name in ids[one.name]} for one in sets})
    assert [(one.kind, one.subject) for one in judge_splits(media, sets)] == [
        ("shared_video", "b"),
        ("shared_by_evaluations", "c"),
    ]
    same = [set_of("val", "x.jsonl"), set_of("test", "x.jsonl")]
    (finding,) = judge_splits(media, same)
    assert finding.message == "validation and test have the same annotations"


def test_sizes_are_formatted_with_units() -> None:
    assert [format_size(size) for size in (0, 999, 1500, 2e6, 3.14e9, 2e13)] == [
        *("0 bytes", "999 bytes", "1.5 kB", "2 MB", "3.14 GB", "20 TB")
    ]
