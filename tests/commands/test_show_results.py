from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.commands.show_results import main
from alpro.tasks.pretraining.config import PretrainConfig


def write_scores(folder: Path, *, r1: float, matching: bool = True) -> None:
    metrics = {"r1": r1, "r5": 2 * r1, "r10": 3 * r1, "medianR": 4.0, "meanR": 5.0}
    scores = {"text2video": metrics, "text2video_vtc": {**metrics, "r1": r1 + 1}}
    folder.mkdir(parents=True)
    protocol = {"matching": matching, "num_captions": 100, "num_videos": 40}
    (folder / "scores.json").write_text(json.dumps({**scores, "protocol": protocol}))


def cells_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_one_row_per_evaluation_and_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scores(tmp_path / "results_test/step_best_1_mean_reversed", r1=7.0)
    write_scores(tmp_path / "results_test/step_best_1_mean", r1=20.0)
    write_scores(tmp_path / "results_val/step_last_1_mean_vtc", r1=30.0, matching=False)
    assert main(["--output_dir", str(tmp_path)]) == 0
    cells = cells_of(capsys.readouterr().out)
    assert cells[0] == [
        *(
            "results",
            "text to video",
            "captions",
            "videos",
            "chance R@1",
            "R@1",
            "R@5",
            "R@10",
            "median rank",
        )
    ]
    assert {tuple(row[2:5]) for row in cells[2:]} == {("100", "40", "2.5")}
    assert [[row[0], row[1], row[5], row[6]] for row in cells[2:]] == [
        ["results_test/step_best_1_mean", "re-ranked by VTM", "20.0", "40.0"],
        ["results_test/step_best_1_mean", "VTC only", "21.0", "40.0"],
        ["results_test/step_best_1_mean_reversed", "re-ranked by VTM", "7.0", "14.0"],
        ["results_test/step_best_1_mean_reversed", "VTC only", "8.0", "14.0"],
        ["results_val/step_last_1_mean_vtc", "VTC only", "31.0", "60.0"],
    ]


def test_several_runs_stand_in_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        write_scores(tmp_path / name / "results_test/step_best_1_mean", r1=7.0, matching=False)
    assert main(["--output_dir", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    _, _, *rows = cells_of(capsys.readouterr().out)
    expected = [str(tmp_path / name / "results_test/step_best_1_mean") for name in "ab"]
    assert [row[0] for row in rows] == expected


def write_answers(
    folder: Path,
    *,
    right: dict[str, int],
    annotations: str = "test.jsonl",
    num_unanswerable: int = 0,
    num_left_out: int = 0,
) -> None:
    totals = {"what": 8, "which way": 2}
    counts = {kind: [right[kind], total] for kind, total in totals.items()}
    folder.mkdir(parents=True)
    scores = {
        "overall_acc": 10.0 * sum(right.values()),
        "counts": {"overall": [sum(right.values()), 10], **counts},
        "majority": {"overall_acc": 20.0, "what_acc": 12.5, "which way_acc": 50.0},
        "top5_acc": 95.04,
        "protocol": {
            "annotations": annotations,
            "num_unanswerable_questions": num_unanswerable,
            "num_left_out_questions": num_left_out,
        },
    }
    (folder / "scores.json").write_text(json.dumps(scores))


def test_answers_are_shown_by_type_with_runs_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qa, scratch = tmp_path / "qa/results_test", tmp_path / "scratch/results_test"
    write_answers(qa / "step_best", right={"what": 7, "which way": 2})
    write_answers(qa / "step_best_reversed", right={"what": 5, "which way": 0})
    write_answers(scratch / "step_best", right={"what": 2, "which way": 1})
    assert main(["--output_dir", str(tmp_path / "qa"), str(tmp_path / "scratch")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("test.jsonl: accuracy in %\n\n|")
    head, _, *rows = cells_of(text)
    assert head == [
        *("answer type", "share", "questions", "majority"),
        *("qa/step_best", "qa/step_best_reversed", "scratch/step_best"),
    ]
    assert rows == [
        ["what", "80.00", "8", "12.50", "87.50", "62.50", "25.00"],
        ["which way", "20.00", "2", "50.00", "100.00", "0.00", "50.00"],
        ["all", "100.00", "10", "20.00", "90.00", "50.00", "30.00"],
        ["all, top-5", "", "", "", "95.04", "95.04", "95.04"],
    ]
    assert text.endswith("|\n"), "no question was lost"


def test_questions_that_could_not_be_right_or_were_left_out_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, results = {"what": 7, "which way": 2}, tmp_path / "results_test"
    write_answers(results / "step_1", right=right)
    write_answers(results / "step_2", right=right, num_unanswerable=3)
    write_answers(results / "step_3", right=right, num_unanswerable=1, num_left_out=2)
    assert main(["--output_dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "",
        "step_2: of the questions 3 could not be right (answers outside the map)",
        "step_3: of the questions 1 could not be right (answers outside the map),"
        " 2 left out (unreadable videos)",
    ]


def test_other_questions_and_retrieval_have_tables_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = {"what": 7, "which way": 2}
    write_answers(tmp_path / "results_a/step_best", right=right)
    write_answers(tmp_path / "results_b/step_best", right=right, annotations="val.jsonl")
    write_scores(tmp_path / "results_c/step_best", r1=7.0)
    assert main(["--output_dir", str(tmp_path)]) == 0
    retrieval, title_a, answers_a, title_b, answers_b = capsys.readouterr().out.split("\n\n")
    assert cells_of(retrieval)[0][1] == "text to video"
    assert [title_a, title_b] == ["test.jsonl: accuracy in %", "val.jsonl: accuracy in %"]
    assert cells_of(answers_a)[0][-1] == cells_of(answers_b)[0][-1] == "step_best"


@pytest.mark.parametrize(
    ("folder", "message"), [(".", "evaluate the run first"), ("nowhere", "there is no folder")]
)
def test_what_cannot_be_shown_is_said(
    folder: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output_dir", str(tmp_path / folder)]) == 2
    assert message in capsys.readouterr().err


def test_a_pretraining_run_is_referred_to_its_losses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/args.json").write_text(json.dumps({"script": PretrainConfig.SCRIPT}))
    assert main(["--output_dir", str(tmp_path)]) == 2
    assert (
        f"is a pretraining run, which has no results of a task: see its losses in {tmp_path}"
        in (capsys.readouterr().err)
    )


DAMAGED = (
    b'{"text2video": {"r1": 3',
    b"[1]",
    b"3",
    b"\xff\xfe",
    b"",
    b"[" * 5000,
    b'{"overall_acc": 3}',
    b'{"overall_acc": 3, "counts": {"overall": [1, 0]}, "majority": {}}',
    b'{"protocol": {"matching": true}, "text2video": {"r1": "high"}}',
    b'{"protocol": 3, "text2video": []}',
)


@pytest.mark.parametrize("content", DAMAGED)
def test_scores_that_are_damaged_or_of_others_are_named(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results_test/step_best_1_mean/scores.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert main(["--output_dir", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {path}: damaged, or not all scores of an evaluation are in")


def test_scores_that_cannot_be_read_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results_test/step_best_1_mean/scores.json"
    path.mkdir(parents=True)
    assert main(["--output_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: is a folder, not a file\n"
