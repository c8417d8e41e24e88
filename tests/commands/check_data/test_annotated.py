"""Reading files whose rows are partly broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.commands.check_data import annotations as annotated
from alpro.commands.check_data.annotations import guess_rows, load_dataset
from alpro.commands.check_data.findings import Findings
from alpro.commands.check_data.sources import CheckedSet, Rows
from tests.pretrain.test_clips import write_lines, write_texts


def captions_left(path: Path) -> tuple[list[str], list[tuple[str, str]], int]:
    findings = Findings()
    data = load_dataset(
        CheckedSet("val_datasets.0", "one", "val", path, "captions", None), findings
    )
    found = [*findings.of_kind["broken_row"], *findings.of_kind["empty_text"]]
    bad = [(row.subject.removeprefix(str(path.parent) + "/"), row.message) for row in found]
    return [row.video_id for row in data.texts], bad, data.num_broken


def test_all_bad_lines_are_reported_and_all_good_ones_kept(tmp_path: Path) -> None:
    lines = [json.dumps({"caption": "a dog", "clip_name": f"v{number}"}) for number in range(1200)]
    lines[3], lines[4], lines[999] = '{"caption": 3, "clip_name": "v3"}', "nonsense", "[]"
    path = tmp_path / "train.jsonl"
    path.write_text("\n\n".join(lines))  # blank lines between them
    good, bad, _ = captions_left(path)
    assert good == [f"v{number}" for number in range(1200) if number not in (3, 4, 999)]
    assert [place for place, _ in bad] == [*("train.jsonl:7", "train.jsonl:9", "train.jsonl:1999")]
    assert [reason.split(";")[0] for _, reason in bad] == [
        "field 'caption' must be text, not int (3)",
        "not JSON (Expecting value at column 1)",
        "a JSON object is expected, not list",
    ]


def test_rows_of_csv_may_go_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('video_id,caption\nv0,"a dog,\nthen a cat"\nv1\nv2,\nv3,"a\nb"\n')
    good, bad, _ = captions_left(path)
    assert good == ["v0", "v3"]
    assert [place for place, _ in bad] == ["train.csv:4", "train.csv:5"]
    assert bad[0][1].startswith("1 field, but the header names 2")


def test_lists_of_images_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    entries = [{"image": "a.jpg", "caption": ["x", "y"]}, {"image": "b.jpg"}, 7]
    path.write_text(json.dumps(entries))
    findings = Findings()
    source = CheckedSet("train_datasets.0", "images", "train", path, "captioned images", None)
    data = load_dataset(source, findings)
    assert [row.text for row in data.texts] == ["x", "y"]
    assert data.num_broken == 2
    told = [finding.subject for finding in findings.of_kind["broken_row"]]
    assert told == [f"{path}: entry 2", f"{path}: entry 3"]


def test_the_first_of_many_bad_rows_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annotated, "MAX_BAD_ROWS", 3)
    path = tmp_path / "train.jsonl"
    path.write_text('{"caption": "no id"}\n' * 20 + '{"caption": "a dog", "clip_name": "v"}\n')
    good, bad, num_broken = captions_left(path)
    assert (good, num_broken) == (["v"], 20)
    assert [place for place, _ in bad] == [f"train.jsonl:{n}" for n in (1, 2, 3)] + ["train.jsonl"]
    assert bad[3][1] == "17 further rows not listed"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"id,text\n1,x\n", "no column"),
        ("a.jsonl", b'{"caption": "\xff"}', "not UTF-8"),
        ("a.csv", b"", "which is empty"),
        ("a.csv", b"\n\n", "no caption"),
        ("a.csv", b"caption,clip_name\n\n\n", "no caption"),
        ("a.jsonl", b'{}\n{"caption": "\xff"}'.replace(b"}\n", b"}\n" * 9000), "not UTF-8"),
        ("a.jsonl", b"", "which is empty"),
        ("a.json", b"", "which is empty"),
        ("a.txt", b"", "annotation files end in"),
        ("a.parquet", b"PAR1", ""),
    ],
)
def test_files_without_any_row_are_one_finding(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    findings = Findings()
    kinds: dict[str, Rows] = {".json": "captioned images", ".parquet": "captioned videos"}
    rows = kinds.get(path.suffix, "captions")
    data = load_dataset(CheckedSet("val_datasets.0", "one", "val", path, rows, tmp_path), findings)
    (finding,) = findings.of_kind["unreadable_annotations"]
    assert data.texts == []
    assert told in finding.message
    assert finding.where == "one (val_datasets.0)"


def test_values_of_a_row_do_not_decide_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    rows: list[object] = [{"the room": "is empty"}, "", "half \ud83d", "a dog"]
    path.write_text("".join(json.dumps({"caption": r, "clip_name": "v"}) + "\n" for r in rows))
    findings = Findings()
    source = CheckedSet("val_datasets.0", "one", "val", path, "captions", tmp_path)
    assert [row.text for row in load_dataset(source, findings).texts] == ["a dog"]
    assert [one.subject for one in findings.of_kind["empty_text"]] == [f"{path}:2"]
    broken = [one.subject for one in findings.of_kind["broken_row"]]
    assert broken == [f"{path}:1", f"{path}:3"]


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("a.jsonl", '\n{"question": "who", "video_id": "v", "answer": "x"}', "questions"),
        ("a.csv", "question,video_id,answer\nwho,v,x\n", "questions"),
        ("a.json", '[{"question": "who", "video": "v.mp4", "answer": "x"}]', "questions"),
        ("a.json", '[{"caption": ["x", "y"], "video": "v.mp4"}]', "captioned videos"),
        ("a.jsonl", '{"caption": "x", "clip_name": "v"}', "captioned videos"),
        ("a.jsonl", '{"image": "a.jpg", "caption": "x"}', "captioned images"),
        ("a.json", '[{"image": "a.jpg", "caption": "x"}]', "captioned images"),
        ("a.csv", "clip_id,caption\nv,x\n", "captions"),
        ("a.csv", "text,movie\nv,x\n", "captions"),
        ("a.jsonl", "nonsense", "captions"),
    ],
)
def test_the_kind_of_rows_is_guessed_from_the_first_row(
    tmp_path: Path, name: str, content: str, rows: Rows
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert guess_rows(path) == rows


def test_clips_have_their_texts_in_an_lmdb(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    write_texts(tmp_path / "subtitles", {"x.0.mp4": b"now add flour", "x.1.mp4": b" "})
    rows = [{"clip_id": "x.0.mp4"}, {"clip_id": "x.1.mp4"}, {}, {"clip_id": "x.2.mp4"}]
    write_lines(tmp_path / "subtitles.jsonl", *rows)
    source = CheckedSet("train_datasets.0", "c", "train", tmp_path / "subtitles", "clips", None)
    findings = Findings()
    data = load_dataset(source, findings)
    assert [(row.video_id, row.text) for row in data.texts] == [("x.0.mp4", "now add flour")]
    assert data.num_broken == 3
    assert [finding.message for finding in findings.of_kind["empty_text"]] == [
        *("no text of x.1.mp4", "no text of x.2.mp4")
    ]
    (broken,) = findings.of_kind["broken_row"]
    assert broken.subject == f"{tmp_path}/subtitles.jsonl:3"
