from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.commands.split_annotations import main, split_by_video
from alpro.datasets.annotations import read_captions
from alpro.tasks.question_answering.annotations import read_answer_labels, read_questions


def write_csv(path: Path, *, num_videos: int, captions_per_video: int = 2) -> Path:
    lines = [
        f"v{video},caption {turn} of {video}"
        for turn in range(captions_per_video)
        for video in range(num_videos)
    ]
    path.write_text("\n".join(["clip_name,caption", *lines]) + "\n")
    return path


def videos_of(path: Path) -> set[str]:
    return {row.video_id for row in read_captions(path)}


def test_no_row_is_lost_and_no_video_is_in_two_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_csv(tmp_path / "all.csv", num_videos=40)
    flags = ["--captions", str(source), "--output", str(tmp_path / "txt")]
    assert main([*flags, "--val", "0.1", "--test", "0.2"]) == 0
    parts = [tmp_path / "txt" / f"{name}.jsonl" for name in ("train", "val", "test")]
    assert [len(videos_of(path)) for path in parts] == [28, 4, 8]
    rows = [row for path in parts for row in read_captions(path)]
    assert sorted(rows, key=str) == sorted(read_captions(source), key=str)
    few = "; too few for reliable scores"
    assert capsys.readouterr().out.splitlines() == [
        "train: 56 rows of 28 videos",
        f"val: 8 rows of 4 videos{few}",
        f"test: 16 rows of 8 videos{few}",
    ]


def test_questions_can_be_divided_like_captions(tmp_path: Path) -> None:
    write_csv(tmp_path / "all.csv", num_videos=30)
    asked = [
        {"question": "what is it?", "answer": f"thing {video % 7}", "video_id": f"v{video}"}
        for video in reversed(range(0, 45, 3))
    ]
    source = tmp_path / "asked.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in asked))
    output = ["--output", str(tmp_path)]
    shares = ["--val", "0.3", "--test", "0.3"]
    assert main(["--captions", str(tmp_path / "all.csv"), *output, *shares]) == 0
    assert main(["--questions", str(source), *output, *shares, "--like", str(tmp_path)]) == 0
    sets = {name: videos_of(tmp_path / f"{name}.jsonl") for name in ("train", "val", "test")}
    asked_in = {
        name: {row.video_id for row in read_questions(tmp_path / f"{name}_qa.jsonl")}
        for name in sets
    }
    for name, videos in sets.items():
        others = set().union(*(found for other, found in sets.items() if other != name))
        assert asked_in[name] & others == set()
        assert asked_in[name] & videos
    new = {f"v{video}" for video in range(30, 45, 3)}
    assert [len(asked_in[name] & new) for name in sets] == [1, 2, 2]  # by the shares
    answers = {row.answer for row in read_questions(tmp_path / "train_qa.jsonl")}
    assert set(read_answer_labels(tmp_path / "ans2label.json").texts) == answers


def test_a_like_folder_without_sets_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_csv(tmp_path / "all.csv", num_videos=10)
    flags = ["--captions", str(source), "--output", str(tmp_path), "--like", str(tmp_path)]
    assert main(flags) == 2
    assert "no train.jsonl, val.jsonl, test.jsonl" in capsys.readouterr().err


def test_a_set_that_became_empty_is_removed_with_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_csv(tmp_path / "all.csv", num_videos=10)
    flags = ["--captions", str(source), "--output", str(tmp_path)]
    assert main(flags) == 0
    assert main([*flags, "--val", "0"]) == 2
    assert "val.jsonl: exists, but would be empty now" in capsys.readouterr().err
    assert main([*flags, "--val", "0", "--overwrite"]) == 0
    assert not (tmp_path / "val.jsonl").exists()


def test_the_seed_determines_the_split() -> None:
    records = [{"clip_name": f"v{video}"} for video in range(50)]
    one, again, other = (
        split_by_video(
            rows, place="clip_name", shares={"val": 0.2, "test": 0.2}, seed=seed, known={}
        )
        for rows, seed in ((records, 0), (records[::-1], 0), (records, 1))
    )
    names = [{record["clip_name"] for record in sets["test"]} for sets in (one, again, other)]
    assert names[0] == names[1] != names[2]


def test_a_set_that_is_not_wanted_is_not_written(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "all.csv", num_videos=4)
    flags = ["--captions", str(source), "--output", str(tmp_path / "txt"), "--test", "0"]
    assert main(flags) == 0
    assert {path.name for path in (tmp_path / "txt").iterdir()} == {"train.jsonl", "val.jsonl"}


def test_existing_sets_are_not_replaced_without_overwrite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_csv(tmp_path / "all.csv", num_videos=10)
    flags = ["--captions", str(source), "--output", str(tmp_path)]
    assert main(flags) == 0
    assert main([*flags, "--seed", "3"]) == 2
    assert "exists with other content" in capsys.readouterr().err
    assert main([*flags, "--seed", "3", "--overwrite"]) == 0


def test_too_few_videos_to_split_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_csv(tmp_path / "all.csv", num_videos=2)
    assert main(["--captions", str(source), "--output", str(tmp_path)]) == 2
    assert "leave none of 2 videos to train on" in capsys.readouterr().err
