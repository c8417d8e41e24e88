"""Captions and questions in JSON of other forms, and copies of MSR-VTT as hubs have them."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from alpro.commands.convert.command import main

_ROWS = [
    {"caption": "a dog", "clip_name": "v1"},
    {"caption": "a cat", "clip_name": "v1"},
    {"caption": "a bird", "clip_name": "v2"},
]
_FORMS: dict[str, Any] = {
    "entries": [
        {"video": "v1.mp4", "caption": ["a dog", "a cat"]},
        {"video": "v2.mkv", "text": "a bird"},
    ],
    "by video": {"v1": ["a dog", "a cat"], "v2": "a bird"},
    "objects by video": {
        "v1": {"caption": ["a dog", "a cat"], "fps": 3},
        "v2": {"caption": "a bird"},
    },
    "lists by video": {
        "v1": [{"caption": "a dog"}, {"caption": "a cat"}],
        "v2": [{"caption": "a bird"}],
    },
    "columns": {"video_id": ["v1", "v1", "v2"], "caption": ["a dog", "a cat", "a bird"]},
    "pandas": {
        "video_id": {"0": "v1", "1": "v1", "2": "v2"},
        "caption": {"0": "a dog", "1": "a cat", "2": "a bird"},
    },
    "official": {
        "info": {"year": "2016"},
        "videos": [{"video_id": "v1", "id": 0, "split": "train"}],
        "sentences": [
            {"caption": row["caption"], "video_id": row["clip_name"], "sen_id": 1} for row in _ROWS
        ],
    },
    "coco": {
        "videos": [{"id": 1, "file_name": "v1.mp4"}, {"id": 2, "file_name": "v2.mp4"}],
        "annotations": [
            {"id": n, "video_id": int(row["clip_name"][1:]), "caption": row["caption"]}
            for n, row in enumerate(_ROWS)
        ],
    },
}  # fmt: skip


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _convert(tmp_path: Path, *flags: str, name: str = "lists") -> int:
    folders = "--source", str(tmp_path / "in"), "--output", str(tmp_path / "out")
    return main([name, *folders, *flags])


def _write(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "in").mkdir(exist_ok=True)
    (tmp_path / "in" / name).write_text(value if isinstance(value, str) else json.dumps(value))


@pytest.mark.parametrize("form", _FORMS)
def test_all_json_formats_give_the_same_rows(tmp_path: Path, form: str) -> None:
    _write(tmp_path, "a.json", _FORMS[form])
    assert _convert(tmp_path) == 0
    assert _lines(tmp_path / "out/train.jsonl") == _ROWS


def test_splits_come_from_the_file_or_the_flag(tmp_path: Path) -> None:
    _write(tmp_path, "a.json", {"train": _FORMS["entries"], "Validation": _FORMS["by video"]})
    _write(tmp_path, "b.jsonl", '{"video": "v9", "caption": "x"}\n\n')
    assert _convert(tmp_path, "--split", "extra") == 0
    assert _lines(tmp_path / "out/train.jsonl") == _ROWS == _lines(tmp_path / "out/val.jsonl")
    assert _lines(tmp_path / "out/extra.jsonl") == [{"caption": "x", "clip_name": "v9"}]


def test_keys_with_other_names_are_passed_as_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "a.json", [{"enCap": "a dog", "ytid": "v1"}])
    assert _convert(tmp_path) == 2
    assert "pass keys with other names as --text_key and --video_key" in capsys.readouterr().err
    assert _convert(tmp_path, "--text_key", "enCap", "--video_key", "ytid") == 0
    assert _lines(tmp_path / "out/train.jsonl") == _ROWS[:1]


def test_images_and_questions_are_converted(tmp_path: Path) -> None:
    annotations = [{"image_id": 3, "id": 1, "caption": "a dog"}]
    coco = {"images": [{"id": 3, "file_name": "3.jpg"}], "annotations": annotations}
    _write(tmp_path, "a.json", coco)
    assert _convert(tmp_path) == 0
    assert _lines(tmp_path / "out/train.jsonl") == [{"caption": "a dog", "image": "3.jpg"}]
    _write(tmp_path, "a.json", [{"question": "who?", "video": "v.mp4", "answer": "x"}])
    assert _convert(tmp_path, "--overwrite") == 0
    question = {"question": "who?", "answer": "x", "video_id": "v", "answer_type": "other"}
    assert _lines(tmp_path / "out/train.jsonl") == [question]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[1, 2]", "a list of objects with a caption or question each, .* is expected, not"),
        ("3", "is expected, not 3"),
        ('[{"caption": "x", "video": "v"}, {"caption": "y"}]', "entry 2: field 'clip_name' "),
        ('[{"caption": "x", "video": "v", "video": "w"}]', 'key "video" occurs more than once'),
        ("[" * 100 + "]" * 100, "nested more than 64 deep"),
        ("<!doctype html>", "is a web page"),
        ("version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ("{}", "no caption is left|needs JSON files of captions or questions"),
    ],
)
def test_wrong_lists_are_reported(
    tmp_path: Path, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path, "a.json", value)
    assert _convert(tmp_path) == 2
    assert re.search(told, capsys.readouterr().err)


def test_sources_are_read_up_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alpro.commands.convert.sources.MAX_FILE_BYTES", 1000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.json.gz").write_bytes(gzip.compress(b" " * 100_000))
    assert _convert(tmp_path) == 2
    assert "larger than the limit of 1,000 bytes" in capsys.readouterr().err


def test_folders_that_cannot_be_read_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scandir(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    _write(tmp_path, "a.json", _FORMS["entries"])
    monkeypatch.setattr(os, "scandir", scandir)
    assert _convert(tmp_path) == 2
    assert f"--source: {tmp_path / 'in'}: cannot be read: Permission denied" in (
        capsys.readouterr().err
    )


def _msrvtt(tmp_path: Path) -> None:
    def entry(n: int, caption: Any) -> dict[str, Any]:
        return {"video_id": f"video{n}", "video": f"video{n}.mp4", "caption": caption, "id": n}

    _write(tmp_path, "msrvtt_train_9k.json", [entry(n, [f"x{n}", f"y{n}"]) for n in range(6)])
    _write(tmp_path, "msrvtt_train_7k.json", [entry(n, [f"x{n}", f"y{n}"]) for n in range(4)])
    _write(tmp_path, "msrvtt_test_1k.json", [entry(n, f"z{n}") for n in (7, 8)])


@pytest.mark.parametrize(("split", "num_videos"), [("9k", 6), ("7k", 4)])
def test_copies_of_msrvtt_from_hubs_are_converted(
    tmp_path: Path, split: str, num_videos: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _msrvtt(tmp_path)
    assert _convert(tmp_path, "--split", split, name="msrvtt") == 0
    assert _lines(tmp_path / "out/train.jsonl") == [
        {"caption": f"{part}{n}", "clip_name": f"video{n}"}
        for n in range(num_videos)
        for part in "xy"
    ]
    assert _lines(tmp_path / "out/test.jsonl") == [
        {"caption": f"z{n}", "clip_name": f"video{n}"} for n in (7, 8)
    ]
    assert "no val.jsonl" in capsys.readouterr().out


def test_copies_of_msrvtt_share_no_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _msrvtt(tmp_path)
    _write(tmp_path, "msrvtt_test_1k.json", [{"video_id": "video3", "caption": "z"}])
    assert _convert(tmp_path, "--split", "9k", name="msrvtt") == 2
    assert "'video3' is also in" in capsys.readouterr().err
