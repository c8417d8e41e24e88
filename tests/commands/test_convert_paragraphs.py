from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands.official_files import convert, read_jsonl, write_json
from tests.shared_data import shared_data

SHARED = shared_data()


def moment(video: str, text: str, *times: tuple[int, int]) -> dict[str, Any]:
    return {
        "annotation_id": 1,
        "description": text,
        "dl_link": "",
        "num_segments": 6,
        "times": [list(one) for one in times],
        "video": video,
    }


def write_didemo(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    for split in ("train", "val", "test"):
        write_json(folder / f"{split}_data.json", splits.get(split, [moment("z.mov", "z", (0, 0))]))
    return folder


@pytest.mark.parametrize(
    ("order", "caption"),
    [
        ("file", "he leaves. a man comes the man sits"),
        ("time", "a man comes the man sits he leaves."),
    ],
)
def test_didemo_descriptions_become_paragraphs(tmp_path: Path, order: str, caption: str) -> None:
    val = [
        moment("1@N01_2_ab.mov", "he leaves. ", (4, 5), (4, 4), (0, 5)),
        moment("3@N01_4_cd.3gp", "a bird", (0, 0)),
        moment("1@N01_2_ab.mov", "a man comes", (0, 0), (0, 1)),
        moment("1@N01_2_ab.mov", " the man sits", (1, 2), (0, 2)),
    ]
    source = write_didemo(tmp_path / "in", val=val)
    assert convert("didemo", source, tmp_path / "out", "--order", order) == 0
    assert read_jsonl(tmp_path / "out" / "val.jsonl") == [
        {"caption": caption, "clip_name": "1@N01_2_ab"},
        {"caption": "a bird", "clip_name": "3@N01_4_cd"},
    ]


@pytest.mark.skipif(SHARED is None, reason="real annotations are not here")
def test_didemo_has_the_published_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first paragraph begins with what comes first in the file, not with what happens first."""
    assert SHARED is not None
    real = {
        split: read_jsonl(SHARED / f"real/annotations/didemo/{split}_paragraph_derived.jsonl")
        for split in ("val", "test")
    }
    splits = {
        split: [moment(f"{row['clip_name']}.mov", row["caption"], (0, 0)) for row in rows]
        for split, rows in real.items()
    }
    kicked = "someone kicks the bug towards some rocks."  # published times: (4, 4) mostly
    (first, *_) = splits["test"]
    assert first["description"].startswith(f"{kicked} ")
    rest = first["description"].removeprefix(f"{kicked} ")
    splits["test"][0] = moment(first["video"], kicked, (4, 4), (4, 4), (0, 0), (4, 4))
    splits["test"].append(moment(first["video"], rest, (0, 0)))
    assert convert("didemo", write_didemo(tmp_path, **splits), tmp_path / "out") == 0
    for split, rows in real.items():
        assert read_jsonl(tmp_path / "out" / f"{split}.jsonl") == [
            {"caption": row["caption"], "clip_name": row["clip_name"]} for row in rows
        ]
    told = capsys.readouterr()
    assert told.out.count(", as published") == 2
    assert "train.jsonl: 1 video, but 8,395 are published" in told.err


def write_activitynet(folder: Path, **entries: Any) -> Path:
    entry = {"duration": 9.0, "timestamps": [[0, 1]], "sentences": ["A cat."]}
    write_json(folder / "train.json", {"v_a": entry})
    write_json(folder / "val_1.json", entries or {"v_b": entry})
    return folder


def test_activitynet_sentences_become_paragraphs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences = ["She dances.", "  She ends\non the floor. ", "", "She comes in."]
    times = [[17.4, 60.8], [56.3, 79.4], [1, 2], [0.8, 19.9]]
    entry = {"duration": 82.7, "timestamps": times, "sentences": sentences}
    source = write_activitynet(tmp_path / "in", v_c=entry)
    assert convert("activitynet", source, tmp_path / "out") == 0
    (row,) = read_jsonl(tmp_path / "out" / "val.jsonl")
    paragraph = "She dances. She ends on the floor. She comes in."
    assert row == {"caption": paragraph, "clip_name": "v_c"}
    assert not (tmp_path / "out" / "val_2.jsonl").exists()
    assert "val.jsonl: 1 video, but 4,917 are published" in capsys.readouterr().err
    write_json(source / "val_2.json", {"v_c": {**entry, "sentences": sentences[::-1]}})
    assert convert("activitynet", source, tmp_path / "timed", "--order", "time") == 0
    (row,) = read_jsonl(tmp_path / "timed" / "val.jsonl")
    assert row["caption"] == "She comes in. She dances. She ends on the floor."
    assert (tmp_path / "timed" / "val_2.jsonl").exists()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"sentences": ["a"], "timestamps": []}, "v_c: 1 sentences but 0 timestamps"),
        ({"sentences": ["a"], "timestamps": [[1]]}, "v_c: a start and an end are expected"),
        ({"sentences": [7], "timestamps": [[1, 2]]}, "v_c: a sentence is expected, not 7"),
        (["a"], "v_c: an object is expected, not list"),
    ],
)
def test_wrong_activitynet_entries_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: Any, said: str
) -> None:
    source = write_activitynet(tmp_path / "in", v_c=entry)
    assert convert("activitynet", source, tmp_path / "out") == 2
    assert f"val_1.json: {said}" in capsys.readouterr().err


def test_a_file_of_another_data_set_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_didemo(tmp_path / "in")
    write_json(source / "train_data.json", {"v_a": {}})
    assert convert("didemo", source, tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "train_data.json: a list of descriptions is expected, not a dict of 1" in told
