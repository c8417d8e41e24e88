"""The evaluator against answering each question by itself: no batches, no padding, nothing kept."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine
from alpro.errors import InputError, NotNumbersError
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.families.alpro.question_answering import AlproForQuestionAnswering
from alpro.tasks.question_answering.annotations import AnswerLabels, QuestionRow
from alpro.tasks.question_answering.evaluation import QaOutcome
from tests.evaluation.ranks import on_ranks
from tests.factories import MEAN, STD, FakeDecoder, make_tokenizer
from tests.question_factories import (
    ANSWERS,
    UNKNOWN_ANSWER,
    make_answer_evaluator,
    make_answer_model,
    make_question_set,
    questions_of,
)

JOIN = {
    "mean": lambda logits: logits.mean(axis=0),
    "max": lambda logits: logits.max(axis=0),
    "lse": lambda logits: np.log(np.exp(logits).sum(axis=0)),
}
VIDEOS = [f"v{number}" for number in range(5)]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def model() -> AlproForQuestionAnswering:
    return make_answer_model()


@pytest.fixture
def rows() -> list[QuestionRow]:
    """Four questions about each of five videos, two of them with an answer outside the map."""
    rows = questions_of(VIDEOS)
    for number in (6, 13):
        rows[number] = replace(rows[number], answer=UNKNOWN_ANSWER)
    return rows


@torch.inference_mode()
def logits_one_by_one(
    model: AlproForQuestionAnswering, tokenizer: Tokenizer, data: EvaluationSet[QuestionRow]
) -> np.ndarray:
    """(Q, C, A) float64 logits, of every question and clip computed on its own."""
    model.eval()
    frames: dict[str, torch.Tensor] = {}
    for batch in data.loader:
        if batch.frames is not None:
            ids = [data.video_ids[position] for position in batch.positions]
            frames |= dict(zip(ids, batch.frames, strict=True))
    table = []
    for row in data.rows:
        text = model.encode_text(*tokenize(tokenizer, [row.question], max_length=20))
        clips = Normalize(MEAN, STD)(frames[row.video_id])  # (C, T, 3, S, S)
        table.append([model.answer(text, model.encode_video(c[None]))[0].double() for c in clips])
    return np.array([[logits.numpy() for logits in clips] for clips in table])


def check_against(outcome: QaOutcome, logits: np.ndarray, rows: list[QuestionRow]) -> None:
    """Compare every answer with (Q, A) logits, with loops."""
    assert [answer.question_id for answer in outcome.answers] == list(range(len(rows)))
    assert list(outcome.rows) == rows
    losses, hits, close = [], 0, 0
    for row, answer, all_scores in zip(rows, outcome.answers, logits, strict=True):
        known = all_scores[: len(ANSWERS)]
        assert answer.best == sorted(range(len(ANSWERS)), key=lambda label: -known[label])[:5]
        total = sum(math.exp(score) for score in known)
        expected = [math.exp(known[label]) / total for label in answer.best]
        assert answer.probabilities == pytest.approx(expected, abs=1e-5)
        if row.answer not in ANSWERS:
            assert answer.loss is None
            continue
        right = ANSWERS.index(row.answer)
        losses.append(math.log(sum(map(math.exp, all_scores))) - all_scores[right])
        assert answer.loss == pytest.approx(losses[-1], abs=1e-4)
        hits += answer.best[0] == right
        close += right in answer.best
    metrics = outcome.flat_metrics()
    assert metrics["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert metrics["overall_acc"] == 100 * hits / len(rows)
    assert metrics["top5_acc"] == 100 * close / len(rows)
    assert 0 < hits < close < len(rows)


def test_questions_are_answered_as_if_alone(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
) -> None:
    data = make_question_set(tmp_path / "set", rows)
    logits = logits_one_by_one(model, tokenizer, data)[:, 0]
    assert (logits.argmax(axis=1) >= len(ANSWERS)).any()  # answers that must not be given
    assert logits.std(axis=0).min() > 1e-2  # answers differ between questions
    outcome = make_answer_evaluator(model, tokenizer).run(data)
    check_against(outcome, logits, rows)
    assert outcome.num_unanswerable == 2
    assert outcome.num_left_out == 0
    kinds = [f"{kind}_acc" for kind in ("what", "who", "how", "which way")]
    assert list(outcome.flat_metrics()) == ["overall_acc", "top5_acc", *kinds, "loss"]


@pytest.mark.parametrize("how", JOIN)
def test_logits_of_several_clips_are_aggregated(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
    how: str,
) -> None:
    data = make_question_set(tmp_path / "set", rows, num_clips=3)
    logits = logits_one_by_one(model, tokenizer, data)
    assert logits.shape[1] == 3
    assert logits.std(axis=1).min() > 1e-4  # the clips differ
    outcome = make_answer_evaluator(model, tokenizer, clip_aggregation=how).run(data)
    check_against(outcome, np.stack([JOIN[how](clips) for clips in logits]), rows)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_number_of_ranks_changes_nothing(
    tokenizer: Tokenizer, rows: list[QuestionRow], tmp_path: Path, size: int
) -> None:
    models = [make_answer_model() for _ in range(size)]

    def evaluate(engine: Engine) -> QaOutcome:
        data = make_question_set(tmp_path / f"set{engine.rank}", rows, broken=["v3"], engine=engine)
        evaluator = make_answer_evaluator(
            models[engine.rank], tokenizer, engine=engine, allow_missing_videos=True
        )
        return evaluator.run(data)

    alone = make_answer_evaluator(models[0], tokenizer, allow_missing_videos=True).run(
        make_question_set(tmp_path / "alone", rows, broken=["v3"])
    )
    assert len(alone.answers) == 16
    # 3 chunks of videos: with 2 ranks one has more than the other, with 5 two have none
    for outcome in on_ranks(size, evaluate):
        assert outcome == alone  # to the last bit


def test_each_video_is_decoded_and_encoded_once_and_each_question_too(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
) -> None:
    decoder = FakeDecoder()
    data = make_question_set(tmp_path / "set", rows, num_clips=2, decoder=decoder)
    assert decoder.reads == dict.fromkeys(VIDEOS, 1)
    encoders = ("encode_video", "encode_text", "answer")
    with mock.patch.multiple(
        model, **{name: mock.Mock(wraps=getattr(model, name)) for name in encoders}
    ):
        make_answer_evaluator(model, tokenizer).run(data)
        calls: dict[str, Any] = {name: getattr(model, name).call_args_list for name in encoders}
    num_videos = [len(call.args[0]) for call in calls["encode_video"]]
    assert num_videos == [2, 2, 2, 2, 1, 1]  # each chunk, each of its clips
    num_questions = [len(call.args[0]) for call in calls["encode_text"]]
    assert num_questions == [3, 3, 2, 3, 3, 2, 3, 1]  # pieces are cut within a chunk
    assert [len(call.args[0].mask) for call in calls["answer"]] == [
        count for count in num_questions for _ in range(2)
    ]


def test_the_models_mode_and_gradients_are_left_alone(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
) -> None:
    data = make_question_set(tmp_path / "set", rows)
    model.train()
    make_answer_evaluator(model, tokenizer).run(data)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_unreadable_videos_are_an_error_that_lists_all(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
) -> None:
    data = make_question_set(tmp_path / "set", rows, broken=["v1", "v4"])
    with pytest.raises(InputError) as caught:
        make_answer_evaluator(model, tokenizer).run(data)
    message = str(caught.value)
    assert "tiny: 2 of 5 videos or images named in" in message
    assert all(f"{name}: made to be unreadable" in message for name in ("v1", "v4"))
    assert "allow_missing_videos to 1" in message


def test_questions_about_unreadable_videos_can_be_left_out(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = ["v2", "v3"]  # a chunk of their own: no video of it is readable
    data = make_question_set(tmp_path / "set", rows, broken=broken)
    with caplog.at_level(logging.WARNING):
        outcome = make_answer_evaluator(model, tokenizer, allow_missing_videos=True).run(data)
    assert "evaluated without 2 unreadable videos" in caplog.text
    kept = [number for number, row in enumerate(rows) if row.video_id not in broken]
    assert [record["question_id"] for record in outcome.results()] == kept
    assert list(outcome.rows) == [rows[number] for number in kept]
    assert outcome.num_left_out == 8
    whole = make_question_set(tmp_path / "whole", rows)
    answers = make_answer_evaluator(model, tokenizer).run(whole).answers
    assert [a.best for a in outcome.answers] == [answers[number].best for number in kept]


def test_a_set_without_readable_videos_is_an_error(
    model: AlproForQuestionAnswering, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    data = make_question_set(tmp_path / "set", questions_of(VIDEOS[:2]), broken=VIDEOS[:2])
    with pytest.raises(InputError, match="tiny: none of the 2 videos can be read"):
        make_answer_evaluator(model, tokenizer, allow_missing_videos=True).run(data)


def test_a_set_without_known_answers_is_all_wrong_and_has_no_loss(
    model: AlproForQuestionAnswering, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = [replace(row, answer=UNKNOWN_ANSWER) for row in questions_of(VIDEOS[:2])]
    data = make_question_set(tmp_path / "set", rows)
    outcome = make_answer_evaluator(model, tokenizer).run(data)
    assert outcome.num_unanswerable == len(outcome.answers) == 8
    kinds = [f"{kind}_acc" for kind in ("what", "who", "how", "which way")]
    assert outcome.flat_metrics() == dict.fromkeys(["overall_acc", "top5_acc", *kinds], 0.0)


def test_logits_that_are_not_numbers_are_no_answers(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    rows: list[QuestionRow],
    tmp_path: Path,
) -> None:
    data = make_question_set(tmp_path / "set", rows)
    torch.nn.init.constant_(model.get_parameter("classifier.2.bias")[3:4], math.nan)
    with pytest.raises(NotNumbersError, match="^the logits of 20 of 20 questions are NaN"):
        make_answer_evaluator(model, tokenizer).run(data)


def test_all_answers_are_reported_if_fewer_than_five_are_known(
    tokenizer: Tokenizer, rows: list[QuestionRow], tmp_path: Path
) -> None:
    labels = AnswerLabels(("ball", "left", "two"))
    evaluator = make_answer_evaluator(make_answer_model(num_labels=3), tokenizer, labels=labels)
    outcome = evaluator.run(make_question_set(tmp_path / "set", rows))
    for record in outcome.results():
        assert {best["answer"] for best in record["top5"]} == set(labels.texts)
        assert sum(best["probability"] for best in record["top5"]) == pytest.approx(1.0)
        assert record["answer_text"] == record["top5"][0]["answer"]
        assert record["answer"] == labels.label_of(record["answer_text"])
