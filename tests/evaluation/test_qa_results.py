from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.configs.fields import fields_of
from alpro.datasets.video_datasets import UnreadableVideo
from alpro.tasks.question_answering.annotations import AnswerLabels, QuestionRow
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.question_answering.evaluation import (
    AnsweredQuestion,
    QaOutcome,
    answers_table,
    best_answers,
    write_answers,
)

LABELS = AnswerLabels(("red", "blue", "ball", "dog", "two", "one"))


def outcome_by_hand() -> QaOutcome:
    """Four questions: one right, one right among the five best, one wrong, one unanswerable."""
    rows = [
        QuestionRow("what is it?", "x", "ball", "what"),
        QuestionRow("how many?", "x", "two", "how"),
        QuestionRow("which way?", "y", "red", "which way"),
        QuestionRow('what "runs"?', "y", "cat", "what"),
    ]
    answers = [
        AnsweredQuestion(0, [2, 1, 0, 3, 4], [0.5, 0.25, 0.125, 0.0625, 0.0625], 0.75),
        AnsweredQuestion(1, [5, 4, 3, 2, 1], [0.4, 0.3, 0.2, 0.1, 0.0], 1.25),
        AnsweredQuestion(2, [5, 4, 3, 2, 1], [0.4, 0.3, 0.2, 0.1, 0.0], 4.0),
        AnsweredQuestion(5, [3, 2, 1, 0, 5], [0.4, 0.3, 0.2, 0.1, 0.0], None),
    ]
    lost = [UnreadableVideo("z", "cut off")]
    return QaOutcome(labels=LABELS, rows=rows, answers=answers, num_left_out=2, unreadable=lost)


def test_metrics_by_hand() -> None:
    assert outcome_by_hand().flat_metrics() == {
        **{"overall_acc": 25.0, "top5_acc": 50.0},
        **{"what_acc": 50.0, "how_acc": 0.0, "which way_acc": 0.0, "loss": 2.0},
    }


def test_the_best_checkpoint_is_chosen_by_a_metric_that_does_not_depend_on_the_types() -> None:
    choices = fields_of(QaConfig)["best_metric"].rule.choices
    assert set(choices) == {"overall_acc", "top5_acc", "loss"}
    assert set(choices) <= set(outcome_by_hand().flat_metrics())


def test_result_files_by_hand(tmp_path: Path) -> None:
    scores = write_answers(tmp_path, outcome_by_hand(), protocol={"seed": 7})
    assert scores == json.loads((tmp_path / "scores.json").read_text())
    assert scores == {
        "ratios": {
            **{"what_ratio": [50.0, 2], "how_ratio": [25.0, 1], "which way_ratio": [25.0, 1]},
        },
        **{"overall_acc": 25.0, "what_acc": 50.0, "how_acc": 0.0, "which way_acc": 0.0},
        "top5_acc": 50.0,
        "counts": {"overall": [1, 4], "what": [1, 2], "how": [0, 1], "which way": [0, 1]},
        # of the equally common "ball" and "cat" one is given
        "majority": {
            **{"overall_acc": 75.0, "what_acc": 50.0, "how_acc": 100.0, "which way_acc": 100.0},
        },
        "protocol": {
            **{"num_questions": 4, "num_videos": 2, "num_unanswerable_questions": 1},
            **{"num_unreadable_videos": 1, "num_left_out_questions": 2, "seed": 7},
        },
    }
    records = json.loads((tmp_path / "results_all.json").read_text())
    assert [record["question_id"] for record in records] == [0, 1, 2, 5]
    assert records[3] == {
        **{"question_id": 5, "answer": 3, "answer_text": "dog"},
        "top5": [
            {"answer": "dog", "probability": 0.4},
            {"answer": "ball", "probability": 0.3},
            {"answer": "blue", "probability": 0.2},
            {"answer": "red", "probability": 0.1},
            {"answer": "one", "probability": 0.0},
        ],
        "data": {
            **{"question": 'what "runs"?', "vid_id": "y", "answer": "cat"},
            **{"question_id": 5, "answer_type": "what"},
        },
    }


def test_scores_are_rounded_as_the_originals() -> None:
    outcome = outcome_by_hand()
    three = QaOutcome(LABELS, outcome.rows[:3], outcome.answers[:3], 0, [])
    assert three.scores()["overall_acc"] == 33.33
    assert three.scores()["top5_acc"] == 66.67
    assert three.scores()["ratios"]["how_ratio"] == [33.33, 1]
    assert three.flat_metrics()["overall_acc"] == 100 / 3


def test_the_table_shows_every_number(tmp_path: Path) -> None:
    lines = answers_table(write_answers(tmp_path, outcome_by_hand(), protocol={})).splitlines()
    assert lines[0].split() == [
        *("answer", "type", "questions", "share", "%", "majority", "%", "accuracy", "%")
    ]
    assert [line.split() for line in lines[1:5]] == [
        ["what", "2", "50.00", "50.00", "50.00"],
        ["how", "1", "25.00", "100.00", "0.00"],
        ["which", "way", "1", "25.00", "100.00", "0.00"],
        ["overall", "4", "100.00", "75.00", "25.00"],
    ]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5:] == [
        "right answer among the five best: 50.00 %",
        "could not be right, their answers are not in the map: 1 question",
        "left out, their videos cannot be read: 2 questions",
    ]


@pytest.mark.parametrize("num_known", [1, 3, 7])
def test_the_best_known_answers_by_hand(num_known: int) -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 9, generator=rng)
    logits[:, 7:] += 100  # beyond the known answers
    best, probabilities = best_answers(logits, num_known=num_known)
    assert best.shape == probabilities.shape == (50, min(5, num_known))
    for row, (labels, given) in enumerate(zip(best.tolist(), probabilities.tolist(), strict=True)):
        known: list[Any] = logits[row, :num_known].double().tolist()
        assert labels == sorted(range(num_known), key=lambda label: -known[label])[:5]
        expected = torch.tensor(known, dtype=torch.float64).softmax(0)[labels].tolist()
        assert given == pytest.approx(expected, rel=1e-12)


# Sorting on a CPU keeps the order of equal values even where it is not asked to; a GPU does not.
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_of_equal_answers_the_lower_labels_come_first(device: str) -> None:
    logits = torch.zeros(1, 2000, device=device)
    logits[0, 7::3] = 1.0
    best, _ = best_answers(logits, num_known=1500)
    assert best.tolist() == [[7, 10, 13, 16, 19]]
    best, probabilities = best_answers(torch.zeros(1, 2000), num_known=1500)
    assert best.tolist() == [[0, 1, 2, 3, 4]]
    assert probabilities.tolist() == [pytest.approx([1 / 1500] * 5)]
