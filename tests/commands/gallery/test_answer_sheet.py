from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alpro.commands.demo.encoding import encode_video
from alpro.commands.gallery.answer_sheet import (
    ShownQuestion,
    choose_questions,
    main,
    question_card,
    read_answers,
)
from alpro.commands.gallery.cards import Bar, Text
from alpro.errors import USER_ERROR_EXIT_CODE


def record(number: int, *best: str, answer: str = "two", kind: str = "how") -> dict[str, Any]:
    """A record of ``results_all.json`` with the model's answers, best first."""
    data = {"question": "how many?", "vid_id": "ab"[number % 2], "question_id": number}
    return {
        "question_id": number,
        "answer": 0,
        "answer_text": best[0],
        "top5": [{"answer": text, "probability": 0.5**place} for place, text in enumerate(best, 1)],
        "data": {**data, "answer": answer, "answer_type": kind},
    }


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "output/results_test_qa/step_best_1_mean/results_all.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([record(0, "two", "one"), record(1, "one", "two")]))
    return path


def test_answers_are_read_best_first(results: Path) -> None:
    first, second = read_answers(results)
    assert first.best == (("two", 0.5), ("one", 0.25))
    assert (first.video_id, first.answer, first.answer_type) == ("a", "two", "how")
    assert second.best[0] == ("one", 0.5)


def question(kind: str, number: int) -> ShownQuestion:
    return ShownQuestion("a", f"{kind} {number}?", "two", kind, (("two", 1.0),))


@pytest.mark.parametrize(
    ("num_questions", "expected"),
    [
        (2, ["what 2?", "who 1?"]),
        (3, ["what 1?", "who 1?", "what 3?"]),
        (6, ["what 0?", "who 0?", "what 1?", "who 1?", "what 3?", "what 4?"]),
        (99, ["what 0?", "who 0?", "what 1?", "who 1?", "what 2?", "what 3?", "what 4?"]),
    ],
)
def test_types_take_turns(num_questions: int, expected: list[str]) -> None:
    answers = [question("what", i) for i in range(5)] + [question("who", i) for i in range(2)]
    chosen = choose_questions(answers, num_questions=num_questions)
    order = [answer.question for answer in chosen]
    assert order[: len(expected)] == expected
    assert len(order) == min(num_questions, len(answers))


def test_the_right_answer_is_green_and_so_is_the_clip_if_it_comes_first(results: Path) -> None:
    cards = [question_card(one, lambda _: []) for one in read_answers(results)]
    (first,), (second,) = (card.strips for card in cards)
    assert (first.outline, second.outline) == ("correct", "wrong")
    assert first.caption == (Text("right answer: two", "correct"), Text("a"))
    assert second.bars == [
        Bar(Text("one"), 0.5, "wrong"),
        Bar(Text("two", "correct"), 0.25, "correct"),
    ]


def test_a_picture_is_written(results: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    encode_video(np.zeros((16, 64, 64, 3), np.uint8), path=videos / "a.mp4")
    (videos / "b.mp4").write_bytes(b"no video")
    flags = ["--output_dir", str(results.parents[2]), "--num_frames", "2"]
    picture = tmp_path / "docs/qa.png"
    assert main([*flags, "--videos", str(videos), "--picture", str(picture)]) == 0
    with Image.open(picture) as image:
        assert min(image.size) > 0
    # Where the videos are stands in the evaluation's own record.
    scores = {"protocol": {"videos": str(videos)}}
    results.with_name("scores.json").write_text(json.dumps(scores))
    assert main(flags) == 0
    assert (results.parents[2] / "answer_sheet.png").read_bytes() == picture.read_bytes()


def test_a_picture_that_cannot_be_written_is_an_error(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"no video")
    flags = ["--output_dir", str(results.parents[2]), "--videos", str(tmp_path)]
    for picture in (results / "sheet.png", tmp_path / "sheet.docx"):
        assert main([*flags, "--picture", str(picture)]) == USER_ERROR_EXIT_CODE
        assert f"cannot write {picture}" in capsys.readouterr().err


def test_without_a_record_of_the_evaluation_its_videos_must_be_given(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output_dir", str(results.parents[2])]) == USER_ERROR_EXIT_CODE
    assert "give --videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [("[", "no list"), ("[1]", "no list"), ("[{}]", "no list"), ("[]", "holds")],
)
def test_bad_results_are_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    results.write_text(text)
    flags = ["--results_dir", str(results.parent), "--videos", str(tmp_path)]
    assert main(flags) == USER_ERROR_EXIT_CODE
    error = capsys.readouterr().err
    assert message in error
    assert str(results) in error


def test_missing_videos_and_results_are_named(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    flags = ["--output_dir", str(results.parents[2]), "--videos", str(tmp_path / "empty")]
    assert main(flags) == USER_ERROR_EXIT_CODE
    assert "holds no video 'a'" in capsys.readouterr().err
    assert main(["--output_dir", str(tmp_path / "empty")]) == USER_ERROR_EXIT_CODE
    assert "no results_all.json" in capsys.readouterr().err
