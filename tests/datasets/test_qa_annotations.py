from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpro.errors import InputError
from alpro.tasks.question_answering.annotations import (
    AnswerLabels,
    QuestionRow,
    describe_unknown,
    read_answer_labels,
    read_questions,
)
from tests.shared_data import shared_data

_ROW = '{"question": "what rolls?", "video_id": "v1", "answer": "ball", "answer_type": "what"}\n'


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_jsonl_rows_in_file_order(tmp_path: Path) -> None:
    text = _ROW + '\n{"answer": "Bär", "video_id": " v2 ", "id": 7, "question": "wer?"}\n'
    assert read_questions(_write(tmp_path / "train.jsonl", text)) == [
        QuestionRow("what rolls?", "v1", "ball", "what"),
        QuestionRow("wer?", "v2", "Bär", "other"),
    ]


def test_rows_of_csv_are_read(tmp_path: Path) -> None:
    header = "video_id,answer_type,question,answer"
    path = _write(tmp_path / "a.csv", f'{header}\nv1,which way,"it rolls, where to?",left\n')
    assert read_questions(path) == [QuestionRow("it rolls, where to?", "v1", "left", "which way")]
    path = _write(tmp_path / "b.csv", "video_id,question,answer\nv1,how many?,2\n")
    assert read_questions(path) == [QuestionRow("how many?", "v1", "2", "other")]


def test_an_empty_cell_of_csv_names_no_answer_type(tmp_path: Path) -> None:
    text = "video_id,question,answer,answer_type,\nv1,how many?,2,,\nv1,who?,dog, ,\n"
    rows = read_questions(_write(tmp_path / "a.csv", text))
    assert [row.answer_type for row in rows] == ["other", "other"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", _ROW + '{"question": \n', ["a.jsonl:2: not JSON", '"answer": "dog"']),
        ("a.jsonl", '{"question": "x", "video_id": "v"}\n', ["a.jsonl:1", "'answer' is missing"]),
        (
            "a.jsonl",
            _ROW.replace('"ball"', "null"),
            [
                "a.jsonl:1: field 'answer' is missing (fields found: ",
                "); questions need an answer, also for inference; a placeholder counts as wrong",
            ],
        ),
        (
            "a.jsonl",
            _ROW.replace('"ball"', '["ball", "box"]'),
            ["'answer' must be text, not list (['ball', 'box']); write one row per answer"],
        ),
        (
            "a.jsonl",
            '["what rolls?", "v1", "ball"]',
            ["a.jsonl:1: a JSON object is expected, not list; write one object per line, such as"],
        ),
        (
            "a.jsonl",
            _ROW.replace('"ball"', "2"),
            ["a.jsonl:1", "'answer' must be text, not int (2); put it in quotes"],
        ),
        ("a.jsonl", _ROW.replace("ball", " "), ["a.jsonl:1", "'answer' is empty"]),
        ("a.jsonl", _ROW.replace("what rolls?", ""), ["a.jsonl:1", "'question' is empty"]),
        ("a.jsonl", _ROW.replace('"what"', "[]"), ["a.jsonl:1", "'answer_type'", "not list ([])"]),
        ("a.jsonl", _ROW.replace('"what"', '""'), ["a.jsonl:1", "'answer_type' is empty"]),
        (
            "a.jsonl",
            '{"caption": "x", "clip_name": "v"}\n',
            ["fields 'question' and 'answer' are missing"],
        ),
        ("a.jsonl", "\n", ["a.jsonl: no question in this file"]),
        (
            "a.csv",
            "question,video_id\nx,v\n",
            ["a.csv:1: no column 'answer' in the header ['question', 'video_id']"],
        ),
        (
            "a.csv",
            "question,video_id,answer\nwell, what?,v,x\n",
            ["a.csv:2: 4 fields", "put questions that contain commas in quotes"],
        ),
        ("a.csv", "question,video_id,answer\nx,v,\n", ["a.csv:2: field 'answer' is empty"]),
        ("a.json", "[]", ["a.json: no question in this file"]),
        ("a.txt", "[]", [".jsonl, .csv"]),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, name: str, text: str, expected: list[str]
) -> None:
    path = _write(tmp_path / name, text)
    with pytest.raises(InputError) as caught:
        read_questions(path)
    for part in expected:
        assert part in str(caught.value)


def test_labels_and_answers_lead_to_each_other(tmp_path: Path) -> None:
    labels = read_answer_labels(_write(tmp_path / "a.json", '{"dog": 1, "cat": 0, "2": 2}'))
    assert labels == AnswerLabels(("cat", "dog", "2"))
    assert len(labels) == 3
    assert [labels.text_of(label) for label in range(3)] == ["cat", "dog", "2"]
    assert [labels.label_of(answer) for answer in ("cat", "dog", "2")] == [0, 1, 2]
    assert labels.label_of("Dog") is None
    with pytest.raises(AssertionError):
        labels.text_of(3)
    with pytest.raises(AssertionError):
        labels.text_of(-1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["not JSON", 'such as {"cat": 0, "dog": 1}']),
        ('{"cat": 0', ["not JSON", "line 1"]),
        ('["cat", "dog"]', ["a JSON object is expected, not list", '{"cat": 0']),
        ("3", ["a JSON object is expected, not int"]),
        ("{}", ["no answer"]),
        ("[" * 3000 + "]" * 3000, ["nested more than 64 deep", 'such as {"cat": 0, "dog": 1}']),
        ('{"cat": ' + "9" * 5000 + "}", ["a number of 5,000 digits", "at line 1, column 9"]),
        ('{"\\ud800": 0}', ["half a character"]),
        ('{"cat": "0"}', ["the label of 'cat' must be a whole number, not str ('0')"]),
        ('{"cat": 0, "dog": true}', ["the label of 'dog' must be a whole number, not bool"]),
        ('{"cat": 0.0}', ["the label of 'cat' must be a whole number, not float (0.0)"]),
        ('{"cat": null}', ["the label of 'cat'", "NoneType"]),
        ('{"cat": {"label": 0}}', ["the label of 'cat'", "dict"]),
        ('{"cat": 0, "cat": 1}', ['key "cat" occurs more than once', "each once"]),
        (
            '{"cat": 1, "dog": 2}',
            ["the numbers 0 to 1, each once", "missing: 0; out of range: 2 ('dog')", "gaps"],
        ),
        ('{"cat": -1, "dog": 0}', ["missing: 1; out of range: -1 ('cat')"]),
        (
            '{"cat": 0, "dog": 0, "cow": 2}',
            ["0 to 2", "missing: 1; given to several answers: 0 ('cat', 'dog')", "checkpoint"],
        ),
    ],
)
def test_a_map_onto_anything_but_0_to_n_is_refused(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    path = _write(tmp_path / "ans2label.json", text)
    with pytest.raises(InputError) as caught:
        read_answer_labels(path)
    assert str(caught.value).startswith(f"ans2label_path: {path}: ")
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["cat", "cow", "cow", "cat"], "'cow'"),
        (["a", "b", "c"], "'a', 'b', 'c'"),
        (["a", "b", "c", "d"], "'a', 'b', 'c', ..."),
        (["a", "Cat"], "'Cat' differs from 'cat' only in capitals or spaces, 'a'"),
        ([" cat"], "' cat' differs from 'cat' only in capitals or spaces"),
        (["ca t"], "'ca t'"),
    ],
)
def test_answers_outside_the_map_are_named(answers: list[str], expected: str) -> None:
    assert describe_unknown(answers, AnswerLabels(("cat", "dog"))) == expected


def test_many_wrong_labels_are_named_by_example(tmp_path: Path) -> None:
    labels: dict[str, Any] = {f"answer {i}": 100 + i for i in range(20)}
    path = _write(tmp_path / "a.json", json.dumps(labels))
    with pytest.raises(InputError, match=r"missing: 0, 1, 2, 3, 4, \.\.\.; out of range: 100 "):
        read_answer_labels(path)


def test_an_absent_or_binary_map_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json: there is no such file; give"):
        read_answer_labels(tmp_path / "absent.json")
    with pytest.raises(InputError, match="ans2label_path"):
        read_answer_labels(tmp_path)
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="UTF-8"):
        read_answer_labels(tmp_path / "a.json")


@pytest.fixture(scope="module")
def real_annotations() -> Path:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    return shared / "real" / "annotations"


def test_the_whole_of_msvd_qa(real_annotations: Path) -> None:
    folder = real_annotations / "msvd_qa"
    rows = {name: read_questions(folder / f"{name}.jsonl") for name in ("train", "val", "test")}
    assert {name: len(part) for name, part in rows.items()} == {
        **{"train": 30933, "val": 6415, "test": 13157}
    }
    answers = {name: {row.answer for row in part} for name, part in rows.items()}
    assert len(answers["train"]) == 1852
    assert len(answers["train"] | answers["val"] | answers["test"]) == 2423
    types = {row.answer_type for part in rows.values() for row in part}
    assert types == {"what", "who", "how", "where", "when"}
    labels = read_answer_labels(folder / "train_ans2label.json")
    assert set(labels.texts) == answers["train"] | answers["val"] | answers["test"]
    assert [labels.label_of(text) for text in labels.texts] == list(range(2423))


def test_questions_about_ten_msrvtt_videos(real_annotations: Path) -> None:
    rows = read_questions(real_annotations / "msrvtt10_qa.jsonl")
    labels = read_answer_labels(real_annotations / "msrvtt_qa_train_ans2label.json")
    assert (len(rows), len({row.video_id for row in rows}), len(labels)) == (234, 10, 1500)
    assert sum(labels.label_of(row.answer) is None for row in rows) == 14
