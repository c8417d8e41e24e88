from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from alpro.evaluation.encoding import AGGREGATIONS
from alpro.families.alpro.model import AlproForRetrieval
from alpro.tasks.retrieval.objective import RetrievalBatch
from tests.factories import (
    MEAN,
    STD,
    caption_of,
    make_batch,
    make_evaluator,
    make_model,
    make_retrieval_set,
    make_tokenizer,
    rows_of,
)
from tests.tasks.pair_tasks import (
    LossAndGradients,
    assert_same,
    gradients_of,
    hardest_negatives,
    loss_and_gradients,
)
from tests.tasks.pair_tasks import make_retrieval_task as make_task


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


def cross_entropy(scores: np.ndarray, *, allowed: np.ndarray) -> float:
    """Mean over rows of -log softmax at the diagonal, over the allowed columns only."""
    exp = np.where(allowed, np.exp(scores), 0.0)
    return float(np.mean(-np.log(np.diag(exp) / exp.sum(axis=1))))


def contrastive_by_hand(
    model: AlproForRetrieval, batch: RetrievalBatch, *, allowed: np.ndarray
) -> float:
    with torch.no_grad():
        video = (
            model.encode_video(Normalize(MEAN, STD)(batch.frames[:, 0])).embedding.double().numpy()
        )
        text = model.encode_text(batch.text_ids, batch.text_mask).embedding.double().numpy()
    scores = video @ text.T / model.temp.item()
    both = [cross_entropy(scores, allowed=allowed), cross_entropy(scores.T, allowed=allowed.T)]
    return sum(both) / 2


def test_the_loss_is_the_sum_of_both_parts(tokenizer: Tokenizer) -> None:
    task, batch = make_task(make_model(), tokenizer), make_batch(tokenizer, rows_of(4))
    losses = task(batch)
    assert set(losses) == {"loss", "itc_loss", "itm_loss"}
    assert all(loss.shape == () for loss in losses.values())
    assert losses["loss"].item() == pytest.approx(
        losses["itc_loss"].item() + losses["itm_loss"].item()
    )
    everything = np.ones((4, 4), dtype=bool)
    expected = contrastive_by_hand(task.model, batch, allowed=everything)
    assert losses["itc_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_contrastive_gradient_is_that_of_the_plain_loss(tokenizer: Tokenizer) -> None:
    model, batch = make_model(), make_batch(tokenizer, rows_of(4))
    found = loss_and_gradients(make_task(model, tokenizer, use_itm=False), batch)
    model.zero_grad()
    video = model.encode_video(Normalize(MEAN, STD)(batch.frames[:, 0])).embedding
    text = model.encode_text(batch.text_ids, batch.text_mask).embedding
    scores, own = video @ text.t() / model.temp, torch.arange(4)
    loss = (functional.cross_entropy(scores, own) + functional.cross_entropy(scores.t(), own)) / 2
    loss.backward()
    assert_same(found, LossAndGradients(loss.item(), gradients_of(model)))


def joined(scores: np.ndarray, *, how: str, axis: int) -> np.ndarray:
    """The scores of a video's clips as one, by the formulas."""
    if how == "lse":
        return np.log(np.exp(scores).sum(axis=axis))
    return scores.mean(axis=axis) if how == "mean" else scores.max(axis=axis)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_losses_over_several_clips_by_hand(tokenizer: Tokenizer, how: str) -> None:
    model, batch = make_model(), make_batch(tokenizer, rows_of(3), num_clips=2)
    task = make_task(model, tokenizer, clip_aggregation=how)
    with torch.no_grad():
        text = model.encode_text(batch.text_ids, batch.text_mask)
        clips = [
            model.encode_video(Normalize(MEAN, STD)(batch.frames[:, clip])) for clip in range(2)
        ]
        embeddings = np.stack([one.embedding.double().numpy() for one in clips])  # (C, B, E)
        of_clips = embeddings @ text.embedding.double().numpy().T / model.temp.item()
        scores = joined(of_clips, how=how, axis=0)  # videos to texts
        # The hardest negatives: the most similar of the others.
        others = np.where(np.eye(3, dtype=bool), -np.inf, scores)
        videos, texts = others.argmax(axis=0), others.argmax(axis=1)
        pairs = [
            *((i, i) for i in range(3)),
            *((i, int(videos[i])) for i in range(3)),
            *((int(texts[i]), i) for i in range(3)),
        ]
        rows, columns = (torch.tensor(indices) for indices in zip(*pairs, strict=True))
        logits = np.stack(
            [model.match(text.select(rows), one.select(columns)).double().numpy() for one in clips]
        )
    logits = joined(logits, how=how, axis=0)  # (9, 2)
    right = logits[np.arange(9), [1] * 3 + [0] * 6]
    everything = np.ones((3, 3), dtype=bool)
    both = [cross_entropy(part, allowed=everything) for part in (scores, scores.T)]
    with hardest_negatives():
        losses = task(batch)
    assert losses["itc_loss"].item() == pytest.approx(sum(both) / 2, rel=1e-5)
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - right)
    assert losses["itm_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert abs(joined(of_clips, how="mean", axis=0) - of_clips[0]).max() > 1e-2  # they differ


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_equal_clips_give_the_gradient_of_one_of_them(tokenizer: Tokenizer, how: str) -> None:
    results = []
    for num_clips in (1, 3):
        batch = make_batch(tokenizer, rows_of(3))
        batch.frames = batch.frames.repeat(1, num_clips, 1, 1, 1, 1)
        with hardest_negatives():
            results.append(
                loss_and_gradients(make_task(make_model(), tokenizer, clip_aggregation=how), batch)
            )
    assert_same(results[1], results[0])


def test_captions_of_the_same_video_can_be_kept_from_being_negatives(tokenizer: Tokenizer) -> None:
    rows = [CaptionRow(caption_of(i), video) for i, video in enumerate(["v0", "v1", "v0", "v2"])]
    batch, model = make_batch(tokenizer, rows), make_model()
    allowed = np.ones((4, 4), dtype=bool)
    unmasked = make_task(model, tokenizer, use_itm=False)(batch)["itc_loss"].item()
    assert unmasked == pytest.approx(contrastive_by_hand(model, batch, allowed=allowed), rel=1e-5)
    allowed[0, 2] = allowed[2, 0] = False
    masked = make_task(model, tokenizer, use_itm=False, mask_same_video=True)(batch)
    expected = contrastive_by_hand(model, batch, allowed=allowed)
    assert masked["itc_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert abs(expected - unmasked) > 1e-2


@pytest.mark.parametrize("videos", [["v0"], ["v0", "v0"]])
def test_without_negatives_matching_learns_from_the_positives_alone(
    tokenizer: Tokenizer, videos: list[str]
) -> None:
    rows = [CaptionRow(caption_of(i), video) for i, video in enumerate(videos)]
    batch, model = make_batch(tokenizer, rows), make_model()
    losses = make_task(model, tokenizer, mask_same_video=True)(batch)
    with torch.no_grad():
        text = model.encode_text(batch.text_ids, batch.text_mask)
        logits = model.match(text, model.encode_video(Normalize(MEAN, STD)(batch.frames[:, 0])))
    expected = -logits.log_softmax(dim=1)[:, 1].mean().item()
    assert losses["itm_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert losses["itc_loss"].item() == pytest.approx(0.0, abs=1e-6)
    losses["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_matching_starts_at_its_update(tokenizer: Tokenizer) -> None:
    task = make_task(make_model(), tokenizer, itm_start_step=3)
    batch = make_batch(tokenizer, rows_of(3))
    named = []
    for step in (1, 2, 3, 4):
        task.on_update_start(step)
        named.append(sorted(task(batch)))
    without, both = ["itc_loss", "loss"], ["itc_loss", "itm_loss", "loss"]
    assert named == [without, without, both, both]


@pytest.mark.parametrize("part", ["itc", "itm"])
def test_each_loss_can_be_trained_alone(tokenizer: Tokenizer, part: str) -> None:
    task = make_task(make_model(), tokenizer, use_itc=part == "itc", use_itm=part == "itm")
    losses = task(make_batch(tokenizer, rows_of(3)))
    assert set(losses) == {"loss", f"{part}_loss"}
    assert losses["loss"].item() == losses[f"{part}_loss"].item()


def test_every_trainable_parameter_gets_a_gradient(tokenizer: Tokenizer) -> None:
    model = make_model()
    make_task(model, tokenizer)(make_batch(tokenizer, rows_of(4)))["loss"].backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) > 50
    # A bias of keys shifts all scores of a query alike: its gradient is 0 but for rounding.
    without = [
        name
        for name, p in trainable.items()
        if p.grad is None or (p.grad.count_nonzero() == 0 and not name.endswith("key.bias"))
    ]
    assert without == []


def test_the_temperature_is_clamped_to_its_bounds(tokenizer: Tokenizer) -> None:
    model = make_model()
    task, batch = make_task(model, tokenizer), make_batch(tokenizer, rows_of(2))
    for given, used in ((-1.0, 0.001), (7.0, 0.5), (0.1, 0.1)):
        torch.nn.init.constant_(model.temp, given)
        task(batch)
        assert model.temp.item() == pytest.approx(used)


def test_validation_reports_metrics_and_mean_losses(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, rows = make_model(), rows_of(4)
    task = make_task(model, tokenizer)
    data = make_retrieval_set(tmp_path / "set", rows, chunk=4)
    torch.manual_seed(1)
    values = task.evaluate(data)
    torch.manual_seed(2)
    assert task.evaluate(data) == values  # the negatives do not depend on the run
    losses = {"loss", "itc_loss", "itm_loss"}
    assert set(values) == losses | set(make_evaluator(model, tokenizer).run(data).flat_metrics())
    assert values["loss"] == pytest.approx(values["itc_loss"] + values["itm_loss"])
    assert task.training
    frames = torch.cat([batch.frames for batch in data.loader])
    batch = make_batch(tokenizer, rows)
    batch.frames = frames
    expected = contrastive_by_hand(model, batch, allowed=np.ones((4, 4), dtype=bool))
    assert values["itc_loss"] == pytest.approx(expected, rel=1e-4)


def test_validation_losses_are_means_over_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make_model()
    # The last batch is a single pair, whose contrastive loss is 0: in the first set because chunks
    # of videos are batches of their own, in the second because of `validation_batch`.
    by_chunk, by_batch = (
        make_task(model, tokenizer, use_itm=False, validation_batch=batch).evaluate(
            make_retrieval_set(tmp_path / f"chunk{chunk}", rows_of(3), chunk=chunk)
        )
        for chunk, batch in ((2, 3), (3, 2))
    )
    first_two = make_retrieval_set(tmp_path / "two", rows_of(2))
    pair = make_task(model, tokenizer, use_itm=False).evaluate(first_two)["itc_loss"]
    assert pair > 0
    for values in (by_chunk, by_batch):
        assert values["itc_loss"] == pytest.approx(pair * 2 / 3, rel=1e-5)


def test_validation_losses_are_over_all_clips(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, rows = make_model(), rows_of(4)
    data = make_retrieval_set(tmp_path / "set", rows, chunk=4, num_clips=2)
    task = make_task(model, tokenizer, use_itm=False, clip_aggregation="lse").eval()
    batch = make_batch(tokenizer, rows)
    batch.frames = torch.cat([batch.frames for batch in data.loader])
    assert task.evaluate(data)["loss"] == pytest.approx(task(batch)["loss"].item(), rel=1e-5)


@pytest.mark.parametrize("part", ["itc", "itm"])
def test_validation_reports_only_the_losses_that_are_on(
    tokenizer: Tokenizer, tmp_path: Path, part: str
) -> None:
    task = make_task(make_model(), tokenizer, use_itc=part == "itc", use_itm=part == "itm")
    values = task.evaluate(make_retrieval_set(tmp_path / "set", rows_of(3)))
    assert {name for name in values if name.endswith("loss")} == {"loss", f"{part}_loss"}
    assert values["loss"] == values[f"{part}_loss"] > 0
