"""JSON rows, on lines or in a list, whatever the file is called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.errors import InputError
from alpro.tasks.pretraining.annotations import CaptionedItem, read_captioned
from alpro.tasks.question_answering.annotations import QuestionRow, read_questions

_ENTRIES = [
    {"video_id": "video7", "video": "video7.mp4", "caption": ["a dog", "a cat"], "id": 7},
    {"video": "clips/video8.WEBM", "caption": "a bird", "start time": 1.5},
    {"videoid": 9, "text": "a fish"},
]
_ROWS = [
    *(CaptionRow("a dog", "video7"), CaptionRow("a cat", "video7")),
    *(CaptionRow("a bird", "clips/video8"), CaptionRow("a fish", "9")),
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 2, "lines"])
def test_copies_on_hubs_are_captions(tmp_path: Path, name: str, indent: Any) -> None:
    path = tmp_path / name
    if indent == "lines":
        path.write_text("\n".join(map(json.dumps, _ENTRIES)))
    else:
        path.write_text("\n " + json.dumps(_ENTRIES, indent=indent))
    assert read_captions(path) == _ROWS


def test_tables_may_hold_lists_too(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"Video": ["v.mp4", "w"], "caption": [["a dog", "a cat"], ["a bird"]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_captions(tmp_path / "a.parquet") == [
        *(CaptionRow("a dog", "v"), CaptionRow("a cat", "v"), CaptionRow("a bird", "w"))
    ]


def test_videos_of_pretraining_keep_their_captions_together(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(_ENTRIES[:1]))
    assert read_captioned(path, "video").items == [
        CaptionedItem("video7", ("a dog", "a cat"), "video")
    ]


def test_questions_may_be_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"question": "who?", "video": "v.mp4", "answer": "x", "question_id": 3}]')
    assert read_questions(path) == [QuestionRow("who?", "v", "x", "other")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "clip_name,caption\nv,x\n", "a.jsonl:1: not JSON .*; if this is CSV, let its"),
        ("a.jsonl", '{"caption": ["x", ""], "video": "v"}', "a.jsonl:1: .* list of texts none of"),
        ("a.json", '[{"caption": [], "video": "v"}]', "entry 1: field 'caption' must be text, or"),
        ("a.json", '{"caption": ["x"], "video": ["v"]}', "with the keys caption, video; list"),
        ("a.json", '{"sentences": [], "videos": []}', "the file with `alpro convert-annotations l"),
        ("a.json", '[{"caption": "x",', "a.json: not JSON .* at line 1, column 18"),
        ("a.json", "clip_name,caption\n", "a.json: not JSON"),
        ("a.jsonl", '{"sentence": "x", "vid": "v"}', "rename 'sentence' to 'caption' .* 'vid' to"),
        ("a.jsonl", '{"Caption": "x", "Video_ID": "v"}', "rename 'Caption' to 'caption' if it is"),
        ("a.jsonl", '{"caption": "x", "caption": "y"}', 'a.jsonl:1: key "caption" occurs more th'),
        ("a.json", '[{"caption": "x", "caption": "y"}]', 'a.json: key "caption" occurs more than'),
        ("a.jsonl", '{"caption": "x", "z": ' + "[" * 99 + "]" * 99 + "}", ":1: lists or objects"),
        ("a.jsonl", '{"caption": "x", "n": ' + "9" * 50 + "}", ":1: .*a number of 50 digits"),
        ("a.jsonl", '{"caption": "x", "video": {"bytes": "' + "x" * 999 + '"}}', "not dict"),
    ],
)
def test_messages_name_the_fault(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_captions(path)
    assert len(str(caught.value)) < 600


def test_lines_are_numbered_over_blocks(tmp_path: Path) -> None:
    line = '{"caption": "x", "clip_name": "v"}\n'
    path = tmp_path / "a.jsonl"
    path.write_text(line * 200 + "\n" + line * 3 + "wrong\n")
    with pytest.raises(InputError, match=r"a\.jsonl:205: not JSON"):
        read_captions(path)
