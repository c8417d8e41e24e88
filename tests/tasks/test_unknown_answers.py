"""Questions whose answers are outside the map: what is said of them, and what becomes of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from alpro.experiment.data import DEBUG_ROWS
from alpro.tasks.question_answering.annotations import QuestionRow, read_questions
from tests.question_factories import UNKNOWN_ANSWER, QaExperiment, write_questions
from tests.tasks.conftest import Refuse, Run, content
from tests.training.toys import metric_lines

RESULTS = "results_test/step_best_1_mean"


def test_unknown_answers_are_counted_and_named(qa_experiment: QaExperiment, run_qa: Run) -> None:
    run_qa(qa_experiment.arguments())
    root = qa_experiment.root
    log, labels = (root / "run/log/log.txt").read_text(), root / "ans2label.json"
    named = f"their answers are not in {labels} \\(ans2label_path\\): 'nobody'\n"
    for reason in (
        f"tiny train: 1 of the 24 questions in {root}/txt/train.jsonl are left out of the training",
        f"tiny test: 1 of the 12 questions in {root}/txt/test.jsonl count as wrong",
    ):
        assert len(re.findall(f"WARNING .*: {reason}, {named}", log)) == 1
    assert "tiny val: " not in log


@pytest.mark.parametrize("flag", ["--dry_run", "--debug"])
def test_unknown_answers_of_a_whole_set_are_counted_where_few_are_evaluated(
    qa_experiment: QaExperiment, run_qa: Run, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    path = qa_experiment.root / "txt/val.jsonl"
    rows = read_questions(path)
    changed = [replace(row, answer=f" {row.answer.upper()}") for row in rows[DEBUG_ROWS:]]
    write_questions(path, [*rows[:DEBUG_ROWS], *changed])
    assert changed
    run_qa(qa_experiment.arguments(flag, "1", "--best_metric", "loss", test_datasets=[]))
    said = capsys.readouterr().err
    assert f"tiny val: {len(changed)} of the {len(rows)} questions in {path} count as wrong" in said
    answer = rows[DEBUG_ROWS].answer
    assert f"' {answer.upper()}' differs from '{answer}' only in capitals or spaces" in said


def test_a_training_set_without_known_answers_is_refused(
    qa_experiment: QaExperiment, refused_qa: Refuse
) -> None:
    rows = [QuestionRow("what is it", "train0", UNKNOWN_ANSWER, "what")]
    write_questions(qa_experiment.root / "txt/train.jsonl", rows)
    path = qa_experiment.root / "txt/train.jsonl"
    message = refused_qa(qa_experiment.arguments())
    assert f"none of the 1 questions in {path} has an answer that is in " in message
    assert "(ans2label_path): 'nobody'. Name the file that belongs to this set" in message


def without_known_answers(experiment: QaExperiment, split: str) -> Path:
    path = experiment.root / f"txt/{split}.jsonl"
    rows = [replace(row, answer=UNKNOWN_ANSWER) for row in read_questions(path)]
    return write_questions(path, rows)


def test_a_set_without_known_answers_is_evaluated_as_all_wrong(
    qa_experiment: QaExperiment, run_qa: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("val", "test"):
        without_known_answers(qa_experiment, split)
    run_qa(qa_experiment.arguments())
    root = qa_experiment.root / "run"
    scores = content(root / RESULTS / "scores.json")
    assert scores["counts"]["overall"] == [0, 12]
    assert scores["protocol"]["num_unanswerable_questions"] == 12
    validations = [line for line in metric_lines(root) if line["split"] == "valid"]
    assert [line["overall_acc"] for line in validations] == [0.0] * len(validations)
    assert all("loss" not in line for line in validations)
    capsys.readouterr()
    run_qa(qa_experiment.inference())
    path = qa_experiment.root / "txt/test.jsonl"
    counted = f": test: 12 of the 12 questions in {path} count as wrong, "
    assert capsys.readouterr().err.count(counted) == 1


def test_a_set_without_a_loss_cannot_choose_the_best_checkpoint_by_it(
    qa_experiment: QaExperiment, refused_qa: Refuse
) -> None:
    path = without_known_answers(qa_experiment, "val")
    message = refused_qa(qa_experiment.arguments("--best_metric", "loss"))
    reason = f"best_metric: tiny val has no loss, none of the 12 questions in {path} has an answer"
    assert reason in message
    assert "overall_acc" in message
    assert not (qa_experiment.root / "run").exists()
