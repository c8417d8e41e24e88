"""The evaluator against scoring each pair by itself: no batches, no padding, nothing kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alpro.configs.fields import fields_of
from alpro.datasets.annotations import CaptionRow
from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.families.alpro.model import AlproForRetrieval
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.tasks.retrieval.evaluation import (
    RetrievalOutcome,
    metrics_table,
    pairs_to_score,
    write_results,
)
from alpro.tasks.retrieval.metrics import retrieval_metrics
from tests.evaluation.ranks import on_ranks
from tests.factories import (
    MEAN,
    STD,
    make_evaluator,
    make_model,
    make_retrieval_set,
    make_tokenizer,
    rows_of,
)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def model() -> AlproForRetrieval:
    return make_model()


@pytest.fixture
def data(tmp_path: Path) -> EvaluationSet[CaptionRow]:
    """Five videos with two captions each, encoded in chunks of two."""
    return make_retrieval_set(tmp_path / "set", rows_of(5, captions_per_video=2))


@torch.inference_mode()
def one_by_one(
    model: AlproForRetrieval, tokenizer: Tokenizer, data: EvaluationSet[CaptionRow]
) -> tuple[np.ndarray, np.ndarray]:
    """(P, V) similarities and match probabilities, every pair computed on its own."""
    model.eval()
    frames: dict[str, torch.Tensor] = {}
    for batch in data.loader:
        if batch.frames is not None:
            ids = [data.video_ids[position] for position in batch.positions]
            frames |= dict(zip(ids, Normalize(MEAN, STD)(batch.frames[:, 0]), strict=True))
    similarity = np.zeros((len(data.rows), len(frames)))
    scores = np.zeros_like(similarity)
    for caption, row in enumerate(data.rows):
        for column, video_id in enumerate(frames):
            text = model.encode_text(*tokenize(tokenizer, [row.caption], max_length=20))
            video = model.encode_video(frames[video_id][None])
            cosine = (text.embedding * video.embedding).sum()
            similarity[caption, column] = cosine / model.temp
            scores[caption, column] = model.match(text, video).double().softmax(-1)[0, 1]
    return similarity, scores


def test_all_pairs_are_scored_as_if_alone(
    model: AlproForRetrieval, tokenizer: Tokenizer, data: EvaluationSet[CaptionRow]
) -> None:
    similarity, scores = one_by_one(model, tokenizer, data)
    assert scores.std() > 1e-2  # scores differ between pairs
    outcome = make_evaluator(model, tokenizer).run(data)
    assert outcome.scored.all()
    assert outcome.video_ids == ["v0", "v1", "v2", "v3", "v4"]
    assert outcome.video_of_caption == [0, 1, 2, 3, 4] * 2
    np.testing.assert_allclose(outcome.similarity, similarity, atol=2e-5)
    np.testing.assert_allclose(outcome.scores, scores, atol=1e-5)
    assert outcome.metrics() == {
        **retrieval_metrics(outcome.scores, outcome.video_of_caption),
        **{
            f"{direction}_vtc": values
            for direction, values in retrieval_metrics(
                outcome.similarity, outcome.video_of_caption
            ).items()
        },
    }


@torch.inference_mode()
def scores_of_clips(
    model: AlproForRetrieval, tokenizer: Tokenizer, data: EvaluationSet[CaptionRow]
) -> tuple[np.ndarray, np.ndarray]:
    """(C, P, V) similarities and (C, P, V, 2) match logits, clip by clip."""
    model.eval()
    frames = torch.cat([batch.frames for batch in data.loader if batch.frames is not None])
    captions = [row.caption for row in data.rows]
    texts = [model.encode_text(*tokenize(tokenizer, [text], max_length=20)) for text in captions]
    similarity, logits = [], []
    for clip in Normalize(MEAN, STD)(frames).unbind(dim=1):
        videos = [model.encode_video(frames_of_one[None]) for frames_of_one in clip]
        similarity.append(
            [[float((t.embedding @ v.embedding.T) / model.temp) for v in videos] for t in texts]
        )
        logits.append([[model.match(t, v)[0].double().tolist() for v in videos] for t in texts])
    return np.array(similarity), np.array(logits)


@pytest.mark.parametrize(
    ("how", "join"),
    [
        ("mean", lambda scores: scores.mean(axis=0)),
        ("max", lambda scores: scores.max(axis=0)),
        ("lse", lambda scores: np.log(np.exp(scores).sum(axis=0))),
    ],
)
def test_scores_of_several_clips_are_aggregated(
    model: AlproForRetrieval,
    tokenizer: Tokenizer,
    tmp_path: Path,
    how: str,
    join: Callable[[np.ndarray], np.ndarray],
) -> None:
    data = make_retrieval_set(tmp_path / "set", rows_of(3, captions_per_video=2), num_clips=3)
    similarity, logits = scores_of_clips(model, tokenizer, data)
    assert similarity.shape == (3, 6, 3)
    assert min(logits.std(axis=0).min(), similarity.std(axis=0).min()) > 1e-5  # the clips differ
    outcome = make_evaluator(model, tokenizer, clip_aggregation=how).run(data)
    np.testing.assert_allclose(outcome.similarity, join(similarity), atol=2e-5)
    exp = np.exp(join(logits))
    np.testing.assert_allclose(outcome.scores, exp[..., 1] / exp.sum(axis=-1), atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_the_number_of_ranks_changes_nothing(
    tokenizer: Tokenizer, tmp_path: Path, size: int
) -> None:
    models, rows = [make_model() for _ in range(size)], rows_of(5, captions_per_video=2)

    def evaluate(engine: Engine) -> list[dict[str, Any]]:
        folder = tmp_path / f"set{engine.rank}"
        data = make_retrieval_set(folder, rows, num_clips=2, engine=engine)
        return make_evaluator(models[engine.rank], tokenizer, engine=engine).run(data).results()

    alone = make_evaluator(models[0], tokenizer).run(
        make_retrieval_set(tmp_path / "alone", rows, num_clips=2)
    )
    for results in on_ranks(size, evaluate):
        assert results == alone.results()  # to the last bit


@pytest.mark.parametrize("top_k", [1, 2])
def test_top_k_scores_only_the_best_pairs_by_similarity(
    model: AlproForRetrieval, tokenizer: Tokenizer, data: EvaluationSet[CaptionRow], top_k: int
) -> None:
    similarity, scores = one_by_one(model, tokenizer, data)
    outcome = make_evaluator(model, tokenizer, top_k=top_k).run(data)
    expected = pairs_to_score(similarity, top_k=top_k)
    assert 0 < expected.sum() < expected.size
    assert (outcome.scored == expected).all()
    np.testing.assert_allclose(outcome.scores[expected], scores[expected], atol=1e-5)
    listed = [(record["txt_id"], record["vid_id"]) for record in outcome.results()]
    assert sorted(listed) == [(c, f"v{v}") for c, v in np.argwhere(expected).tolist()]
    large = make_evaluator(model, tokenizer, top_k=100).run(data)
    assert large.scored.all()


def test_pairs_can_be_ranked_by_similarity_alone(
    model: AlproForRetrieval, tokenizer: Tokenizer, data: EvaluationSet[CaptionRow]
) -> None:
    outcome = make_evaluator(model, tokenizer, use_matching=False).run(data)
    metrics = outcome.metrics()
    assert not outcome.scored.any()
    assert metrics["text2video"] == metrics["text2video_vtc"]
    assert metrics["video2text"] == metrics["video2text_vtc"]
    assert len(outcome.results()) == outcome.similarity.size
    assert all(record["score"] == record["sim"] for record in outcome.results())


def test_the_models_mode_and_gradients_are_left_alone(
    model: AlproForRetrieval, tokenizer: Tokenizer, data: EvaluationSet[CaptionRow]
) -> None:
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_evaluator(model, tokenizer).run(data)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unreadable_videos_are_an_error_that_lists_all(
    model: AlproForRetrieval, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    data = make_retrieval_set(tmp_path / "set", rows_of(5), broken=["v1", "v2", "v4"])
    with pytest.raises(InputError) as caught:
        make_evaluator(model, tokenizer).run(data)
    message = str(caught.value)
    assert "tiny: 3 of 5 videos or images named in" in message
    assert str(data.annotations) in message
    assert all(f"{name}: made to be unreadable" in message for name in ("v1", "v2", "v4"))
    assert "allow_missing_videos to 1" in message


def test_unreadable_videos_can_be_left_out(
    model: AlproForRetrieval,
    tokenizer: Tokenizer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = rows_of(5, captions_per_video=2)
    # v2 and v3 are a chunk of their own: no video of it is readable.
    data = make_retrieval_set(tmp_path / "set", rows, broken=["v2", "v3"])
    with caplog.at_level(logging.WARNING):
        outcome = make_evaluator(model, tokenizer, allow_missing_videos=True).run(data)
    assert "evaluated without 2 unreadable videos" in caplog.text
    assert outcome.video_ids == ["v0", "v1", "v4"]
    assert list(outcome.caption_ids) == [0, 1, 4, 5, 6, 9]
    assert outcome.video_of_caption == [0, 1, 2, 0, 1, 2]
    whole = make_retrieval_set(tmp_path / "whole", rows)
    similarity, scores = one_by_one(model, tokenizer, whole)
    kept = np.ix_([0, 1, 4, 5, 6, 9], [0, 1, 4])
    np.testing.assert_allclose(outcome.scores, scores[kept], atol=1e-5)
    np.testing.assert_allclose(outcome.similarity, similarity[kept], atol=2e-5)


def test_a_set_without_any_readable_video_is_an_error(
    model: AlproForRetrieval, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    data = make_retrieval_set(tmp_path / "set", rows_of(2), broken=["v0", "v1"])
    evaluator = make_evaluator(model, tokenizer, allow_missing_videos=True)
    with pytest.raises(InputError, match="tiny: none of the 2 videos can be read"):
        evaluator.run(data)


def outcome_by_hand() -> RetrievalOutcome:
    """Two captions and two videos, one pair unscored."""
    return RetrievalOutcome(
        caption_ids=[0, 3],
        video_ids=["x", "y"],
        video_of_caption=[0, 1],
        similarity=np.array([[2.0, 1.0], [5.0, 4.0]], dtype=np.float32),
        scores=np.array([[0.123456789012, 0.0], [0.25, 0.75]]),
        scored=np.array([[True, False], [True, True]]),
        unreadable=[],
    )


def test_results_files_by_hand(tmp_path: Path) -> None:
    write_results(tmp_path / "out", outcome_by_hand(), protocol={"seed": 7})
    assert json.loads((tmp_path / "out/results.json").read_text()) == [
        {"vid_id": "x", "txt_id": 0, "score": 0.123456789012, "sim": 2.0},
        {"vid_id": "x", "txt_id": 3, "score": 0.25, "sim": 5.0},
        {"vid_id": "y", "txt_id": 3, "score": 0.75, "sim": 4.0},
    ]
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores.pop("protocol") == {
        **{"num_captions": 2, "num_videos": 2, "num_unreadable_videos": 0},
        **{"num_scored_pairs": 3, "seed": 7},
    }
    first = {"r1": 100.0, "r5": 100.0, "r10": 100.0, "medianR": 1.0, "meanR": 1.0}
    half = {**first, "r1": 50.0, "medianR": 1.5, "meanR": 1.5}
    # To x, caption 3 is the more similar one, by the scores too; to y only caption 3 is scored.
    assert scores == {
        "text2video": first,
        "video2text": half,
        "text2video_vtc": half,
        "video2text_vtc": half,
    }


def test_every_metric_can_choose_the_best_checkpoint() -> None:
    choices = fields_of(RetrievalConfig)["best_metric"].rule.choices
    assert set(choices) == set(outcome_by_hand().flat_metrics())


def test_the_table_shows_every_number() -> None:
    lines = metrics_table(outcome_by_hand().metrics()).splitlines()
    assert lines[0].split() == ["R@1", "R@5", "R@10", "median", "rank", "mean", "rank"]
    assert lines[1].split() == ["text", "to", "video", "100.0", "100.0", "100.0", "1.0", "1.0"]
    assert lines[4].split("VTC only")[1].split() == ["50.0", "100.0", "100.0", "1.5", "1.5"]


def test_transductive_rows_stand_beside_the_others_and_are_marked() -> None:
    plain = outcome_by_hand()
    outcome = replace(plain, dual_softmax=True, temperature=0.01)  # cosines .02, .01, .05, .04
    metrics = outcome.metrics()
    assert {name: row for name, row in metrics.items() if "dsl" not in name} == plain.metrics()
    # To caption 0, the weights of x and y are e^2 / (e^2 + e^5) and e / (e + e^4), the same; so
    # x stays the nearer one, as it does to caption 3.
    assert metrics["text2video_dsl"]["r1"] == 50.0
    table = metrics_table(metrics)
    assert "text to video, DSL*" in table
    assert table.splitlines()[-1].startswith("* dual softmax is transductive")
