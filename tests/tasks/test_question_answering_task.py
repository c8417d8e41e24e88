from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine, SingleProcess
from alpro.families.alpro.question_answering import AlproForQuestionAnswering
from alpro.tasks.question_answering.annotations import QuestionRow
from alpro.tasks.question_answering.objective import QuestionAnsweringObjective
from tests.evaluation.ranks import on_ranks
from tests.factories import CPU, MEAN, STD, make_tokenizer
from tests.question_factories import (
    ANSWERS,
    make_answer_evaluator,
    make_answer_model,
    make_question_batch,
    make_question_set,
    questions_of,
)

ROWS = [  # three questions about two videos
    QuestionRow("what is it", "v0", "ball", "what"),
    QuestionRow("who rolls", "v0", "green", "who"),
    QuestionRow("what is it", "v1", "box", "what"),
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


def make_task(
    model: AlproForQuestionAnswering,
    tokenizer: Tokenizer,
    *,
    engine: Engine | None = None,
    clip_aggregation: str = "mean",
) -> QuestionAnsweringObjective:
    engine = engine or SingleProcess(CPU, scale_loss=False)
    evaluator = make_answer_evaluator(
        model, tokenizer, engine=engine, clip_aggregation=clip_aggregation
    )
    task = QuestionAnsweringObjective(
        model, engine=engine, normalize=Normalize(MEAN, STD), evaluator=evaluator
    )
    return task.train()


@torch.no_grad()
def logits_one_by_one(
    model: AlproForQuestionAnswering, tokenizer: Tokenizer, rows: list[QuestionRow]
) -> list[Tensor]:
    """(A,) float64 logits of each question, alone in a batch with its video."""
    logits = []
    for row in rows:
        batch = make_question_batch(tokenizer, [row])
        video = model.encode_video(Normalize(MEAN, STD)(batch.frames[:, 0]))
        text = model.encode_text(batch.text_ids, batch.text_mask)
        logits.append(model.answer(text, video)[0].double())
    return logits


def test_loss_and_accuracy_by_hand(tokenizer: Tokenizer) -> None:
    """Each question is fused with its own video: the same one is asked about both."""
    model = make_answer_model()
    logits = logits_one_by_one(model, tokenizer, ROWS)
    assert (logits[0] - logits[2]).abs().max() > 0.1  # the videos differ
    batch = make_question_batch(tokenizer, ROWS)
    best = [int(one.argmax()) for one in logits]
    batch.labels = torch.tensor([best[0], (best[1] + 1) % len(ANSWERS), best[2]])
    losses = make_task(model, tokenizer)(batch)
    expected = sum(
        float(one.exp().sum().log() - one[label])
        for one, label in zip(logits, batch.labels.tolist(), strict=True)
    )
    assert losses["loss"].item() == pytest.approx(expected / 3, rel=1e-5)
    assert losses["acc"].item() == pytest.approx(100 * 2 / 3)
    assert all(value.shape == () for value in losses.values())


@pytest.mark.parametrize("how", ["mean", "max", "lse"])
def test_the_loss_over_several_clips_by_hand(tokenizer: Tokenizer, how: str) -> None:
    model, batch = make_answer_model(), make_question_batch(tokenizer, ROWS, num_clips=2)
    with torch.no_grad():
        text = model.encode_text(batch.text_ids, batch.text_mask)
        of_clips = []
        for frames in Normalize(MEAN, STD)(batch.frames).unbind(dim=1):
            video = model.encode_video(frames).select(batch.video_of_question)
            of_clips.append(model.answer(text, video).double())
    first, second = of_clips
    assert (first - second).abs().max() > 0.1  # the clips differ
    logits = {
        "mean": (first + second) / 2,
        "max": torch.where(first > second, first, second),
        "lse": (first.exp() + second.exp()).log(),
    }[how]
    right = logits[torch.arange(3), batch.labels]
    losses = make_task(model, tokenizer, clip_aggregation=how)(batch)
    expected = (logits.exp().sum(dim=1).log() - right).mean().item()
    assert losses["loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("how", ["mean", "max", "lse"])
def test_one_clip_is_not_aggregated(tokenizer: Tokenizer, how: str) -> None:
    batch = make_question_batch(tokenizer, ROWS)
    losses = [
        make_task(make_answer_model(), tokenizer, clip_aggregation=one)(batch)["loss"].item()
        for one in (how, "mean")
    ]
    assert losses[0] == losses[1]


def test_each_video_is_encoded_once(tokenizer: Tokenizer) -> None:
    model, encode = make_answer_model(), AlproForQuestionAnswering.encode_video
    batch = make_question_batch(tokenizer, ROWS)
    with mock.patch.object(AlproForQuestionAnswering, "encode_video", autospec=True) as encoder:
        encoder.side_effect = encode
        make_task(model, tokenizer)(batch)
    ((_, frames),) = (call.args for call in encoder.call_args_list)
    assert frames.shape[0] == 2


def test_every_trainable_parameter_gets_a_gradient(tokenizer: Tokenizer) -> None:
    model = make_answer_model()
    make_task(model, tokenizer)(make_question_batch(tokenizer, ROWS))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_questions_weigh_the_same_on_ranks_with_more_and_with_fewer(tokenizer: Tokenizer) -> None:
    rows = [*questions_of(["v0"]), questions_of(["v1"])[0]]
    parts = [rows[:4], rows[4:]]
    models = [make_answer_model() for _ in parts]

    def gradients(engine: Engine) -> dict[str, Tensor]:
        model = models[engine.rank]
        batch = make_question_batch(tokenizer, parts[engine.rank])
        make_task(model, tokenizer, engine=engine)(batch)["loss"].backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    first, second = on_ranks(2, gradients)
    whole = make_answer_model()
    make_task(whole, tokenizer)(make_question_batch(tokenizer, rows))["loss"].backward()
    for name, parameter in whole.named_parameters():
        if (gradient := parameter.grad) is not None:
            atol = 1e-5 * float(gradient.abs().max()) + 1e-7
            mean = (first[name] + second[name]) / 2
            torch.testing.assert_close(mean, gradient, atol=atol, rtol=0.0, msg=name)


def test_validation_gives_the_metrics_of_the_set(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make_answer_model()
    data = make_question_set(tmp_path / "set", questions_of(["v0", "v1", "v2"]))
    values = make_task(model, tokenizer).evaluate(data)
    assert values == make_answer_evaluator(model, tokenizer).run(data).flat_metrics()
    assert 0 <= values["overall_acc"] <= values["top5_acc"] <= 100
