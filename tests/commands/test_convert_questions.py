from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.tasks.question_answering.annotations import read_answer_labels, read_questions
from tests.commands.official_files import (
    convert,
    questions,
    read_jsonl,
    write_lines,
    write_questions,
)
from tests.shared_data import shared_data

SHARED = shared_data()
LABELS = "train_ans2label.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    train = questions(
        (3, "what is a man doing?", "run"),
        (3, "who is running?", "man"),
        (0, "who sings?", "man"),
        (0, "How many men sing?", "two"),
        (0, "where do they sing?", "bar"),
    )
    val = questions((1, "who jumps?", "dog"))
    test = questions((2, "is it a cat?", "cat"), (2, "when does it rain?", "day"))
    return write_questions(tmp_path / "qa", train=train, val=val, test=test)


def test_msrvtt_questions_are_converted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert convert("msrvtt_qa", source, output, "--num_answers", "2") == 0
    assert read_jsonl(output / "train.jsonl")[0] == {
        "question": "what is a man doing?",
        "answer": "run",
        "video_id": "video3",
        "answer_type": "what",
    }
    types = [row["answer_type"] for row in read_jsonl(output / "train.jsonl")]
    assert types == ["what", "who", "who", "how", "where"]
    assert [row["answer_type"] for row in read_jsonl(output / "test.jsonl")] == ["other", "when"]
    assert json.loads((output / LABELS).read_text()) == {"bar": 0, "man": 1}
    told = capsys.readouterr()
    assert "1 question of type 'other'" in told.out
    assert "train.jsonl: 2 of 5 questions (40.0%) have answers without a label; they" in told.out
    assert "train.jsonl: 5 questions, but 158,581 are published (Xu et al." in told.err


@pytest.mark.parametrize("flags", [(), ("--num_answers", "0")])
def test_msrvtt_answers_are_those_of_training(
    source: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    assert convert("msrvtt_qa", source, tmp_path / "out", *flags) == 0
    labels = read_answer_labels(tmp_path / "out" / LABELS)
    assert labels.texts == ("bar", "man", "run", "two")


def test_empty_questions_are_left_out(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = questions((1, " ", "dog"), (1, "who?", ""), (1, "who jumps?", "dog"))
    (source / "test_qa.json").write_text(json.dumps(test))
    assert convert("msrvtt_qa", source, tmp_path / "out") == 0
    assert len(read_questions(tmp_path / "out" / "test.jsonl")) == 1
    told = "test.jsonl: 2 entries with an empty question or answer left out"
    assert told in capsys.readouterr().out


def test_msvd_questions_are_converted(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("msvd_qa", source, tmp_path / "out") == 2
    assert "MSVD-QA needs youtube_mapping.txt" in capsys.readouterr().err
    write_lines(source / "youtube_mapping.txt", [f"clip{n}_1_2 vid{n}" for n in range(1, 4)])
    assert convert("msvd_qa", source, tmp_path / "out") == 2
    assert "youtube_mapping.txt: no line for vid0" in capsys.readouterr().err
    write_lines(source / "youtube_mapping.txt", [f"-clip{n}_1_2 vid{n}" for n in range(4)])
    assert convert("msvd_qa", source, tmp_path / "out") == 0
    assert read_jsonl(tmp_path / "out" / "val.jsonl")[0]["video_id"] == "-clip1_1_2"
    labels = read_answer_labels(tmp_path / "out" / LABELS)
    assert labels.texts == ("bar", "cat", "day", "dog", "man", "run", "two")
    assert "train_ans2label.json: 7 answers, but 2,423 are published" in capsys.readouterr().err
    assert convert("msvd_qa", source, tmp_path / "vid", "--ids", "vid", "--num_answers", "1") == 0
    assert read_jsonl(tmp_path / "vid" / "val.jsonl")[0]["video_id"] == "vid1"
    assert read_answer_labels(tmp_path / "vid" / LABELS).texts == ("man",)


@pytest.mark.skipif(SHARED is None, reason="real annotations are not here")
def test_msvd_qa_has_the_published_counts(tmp_path: Path) -> None:
    """From the official form back to the files that ALPRO's authors share, labels included."""
    assert SHARED is not None
    real = SHARED / "real/annotations/msvd_qa"
    rows = {split: read_jsonl(real / f"{split}.jsonl") for split in ("train", "val", "test")}
    clips = sorted({row["video_id"] for own in rows.values() for row in own})
    numbers = {clip: number for number, clip in enumerate(clips, start=1)}
    official = {
        split: questions(
            *((numbers[row["video_id"]], row["question"], row["answer"]) for row in own)
        )
        for split, own in rows.items()
    }
    source = write_questions(tmp_path / "in", **official)
    write_lines(source / "youtube_mapping.txt", [f"{clip} vid{n}" for clip, n in numbers.items()])
    output = tmp_path / "out"
    assert convert("msvd_qa", source, output, "--strict") == 0
    for split, own in rows.items():
        assert read_jsonl(output / f"{split}.jsonl") == own
        assert (
            read_questions(output / f"{split}.jsonl")[:1]
            == (read_questions(real / f"{split}.jsonl")[:1])
        )
    assert json.loads((output / LABELS).read_text()) == json.loads((real / LABELS).read_text())


@pytest.mark.skipif(SHARED is None, reason="real annotations are not here")
def test_published_msrvtt_questions_are_converted(tmp_path: Path) -> None:
    assert SHARED is not None
    real = read_jsonl(SHARED / "real/annotations/msrvtt10_qa.jsonl")
    official = questions(
        *(
            (int(row["video_id"].removeprefix("video")), row["question"], row["answer"])
            for row in real
        )
    )
    source = write_questions(tmp_path / "in", train=official, val=official, test=official)
    assert convert("msrvtt_qa", source, tmp_path / "out") == 0
    assert read_jsonl(tmp_path / "out" / "test.jsonl") == real


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([], "train.jsonl: the source has no question for it"),
        ([{"question": "who?", "video_id": 1}], "train_qa.json: entry 0: no 'answer' (keys: ["),
        ([["who?"]], "train_qa.json: entry 0: an object is expected, not list (['who?'])"),
    ],
)
def test_wrong_questions_are_reported(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    train: list[object],
    said: str,
) -> None:
    (source / "train_qa.json").write_text(json.dumps(train))
    assert convert("msrvtt_qa", source, tmp_path / "out") == 2
    assert said in capsys.readouterr().err
