from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from alpro.datasets.tokenization import Tokenizer
from alpro.datasets.transforms.normalize import Normalize
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.losses import Pairs
from alpro.modeling.contracts import TextFeatures, VideoFeatures
from alpro.tasks.pretraining.batches import IGNORED, PretrainBatch
from tests.factories import MEAN, PATCH_SIZE, STD
from tests.pretraining_factories import (
    LOSSES,
    given,
    make_pairs,
    make_pretraining_model,
    make_pretraining_task,
)

VIDEOS = ("v0", "v1", "v2", "v3")
DRAW = "alpro.families.alpro.pretraining_objective.hard_negatives"
NEGATIVES = Pairs(torch.tensor([0, 1, 2, 3, 0]), torch.tensor([2, 0, 3, 1, 1]))
KINDS: dict[str, dict[str, object]] = {
    "videos": {},
    "images of one frame": {"media": "image", "num_frames": 1},
    "repeated images": {"media": "image"},
}

MakePairs = Callable[..., PretrainBatch]


@pytest.fixture
def pairs(tokenizer: Tokenizer) -> MakePairs:
    return lambda videos=VIDEOS, **options: make_pairs(tokenizer, videos, **options)


def log_softmax(scores: Tensor) -> np.ndarray:
    values = scores.double().numpy()
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


class SeparateLosses:
    """Each loss of a batch as its formula says, one sample or pair after the other."""

    def __init__(self, model: AlproForPretraining, batch: PretrainBatch) -> None:
        self.model, self.batch = model, batch
        self.count = len(batch.video_ids)

    def video(self, row: int) -> VideoFeatures:
        return self.model.encode_video(Normalize(MEAN, STD)(self.batch.frames[row]))

    def text(self, row: int, *, masked: bool = False) -> TextFeatures:
        ids = given(self.batch.masked_ids) if masked else self.batch.text_ids
        return self.model.encode_text(ids[row : row + 1], self.batch.text_mask[row : row + 1])

    def itc(self) -> float:
        video = np.concatenate([self.video(row).embedding.numpy() for row in range(self.count)])
        text = np.concatenate([self.text(row).embedding.numpy() for row in range(self.count)])
        scores = torch.from_numpy(video @ text.T) / self.model.temp
        both = (np.diag(log_softmax(scores)), np.diag(log_softmax(scores.t())))
        return float(-np.mean(both))

    def itm(self, negatives: Pairs) -> float:
        own = list(range(self.count))
        texts, videos = own + negatives.texts.tolist(), own + negatives.videos.tolist()
        losses = []
        for place, (text, video) in enumerate(zip(texts, videos, strict=True)):
            fused = self.model.fuse(self.text(text), self.video(video))
            label = int(place < self.count)
            losses.append(-log_softmax(self.model.itm_head(fused[0, 0]))[label])
        return float(np.mean(losses))

    def mlm(self) -> float:
        losses = []
        for row, labels in enumerate(given(self.batch.mlm_labels).tolist()):
            fused = self.model.fuse(self.text(row, masked=True), self.video(row))
            words = log_softmax(self.model.text_encoder.predict_words(fused[0]))
            losses += [
                -words[place, label] for place, label in enumerate(labels) if label != IGNORED
            ]
        return float(np.mean(losses))

    def targets(self, row: int) -> np.ndarray:
        """The prompter's probabilities (K,) of a region."""
        prompter = given(self.model.prompter)
        frames = torch.zeros_like(self.batch.frames[row, 0])
        for down, right in given(self.batch.region)[row].nonzero().tolist():
            box = (
                slice(down * PATCH_SIZE, (down + 1) * PATCH_SIZE),
                slice(right * PATCH_SIZE, (right + 1) * PATCH_SIZE),
            )
            frames[:, :, *box] = self.batch.frames[row, 0][:, :, *box]
        seen = prompter.encode_video(Normalize(MEAN, STD)(frames[None])).embedding
        prompts = {"video": prompter.video_prompt_feat, "image": prompter.image_prompt_feat}
        scores = seen[0] @ prompts[self.batch.media].t() / prompter.temp
        return np.exp(log_softmax(scores))

    def mpm(self, threshold: float) -> float:
        losses = []
        length = self.batch.text_ids.shape[1]
        for row in range(self.count):
            fused = self.model.fuse(self.text(row), self.video(row))[0]
            inside = given(self.batch.region)[row].flatten().nonzero().flatten()
            logits = given(self.model.mpm_head)(fused[length + 1 + inside].mean(dim=0))
            targets = self.targets(row)
            if targets.max() >= threshold:
                losses.append(-(targets * log_softmax(logits)).sum())
        return float(np.mean(losses))


@pytest.mark.parametrize("kind", KINDS)
def test_each_loss_equals_its_separate_computation(pairs: MakePairs, kind: str) -> None:
    model, batch = make_pretraining_model(), pairs(**KINDS[kind])
    alone = SeparateLosses(model, batch)
    with torch.no_grad():
        best = sorted(alone.targets(row).max() for row in range(4))
        threshold = (best[1] + best[2]) / 2  # two of the four are above it
        expected = {
            **{"itc": alone.itc(), "itm": alone.itm(NEGATIVES)},
            **{"mlm": alone.mlm(), "mpm": alone.mpm(threshold)},
        }
    task = make_pretraining_task(model, entity_threshold=threshold)
    with mock.patch(DRAW, return_value=NEGATIVES):
        losses = task(batch)
    for name, value in expected.items():
        assert losses[f"{name}_loss"].item() == pytest.approx(value, rel=1e-5, abs=1e-5), name
    assert losses["loss"].item() == pytest.approx(sum(expected.values()), rel=1e-5)
    assert losses["mpm_confident"].item() == 50.0


def test_losses_are_reported_with_their_accuracies(pairs: MakePairs) -> None:
    losses = make_pretraining_task(make_pretraining_model())(pairs())
    shares = {"i2t_acc", "t2i_acc", "itm_acc", "mlm_acc", "mpm_acc", "mpm_confident"}
    assert set(losses) == {"loss", *(f"{name}_loss" for name in LOSSES), *shares}
    assert all(value.shape == () for value in losses.values())
    assert all(0 <= losses[name].item() <= 100 for name in shares)


class ForwardPasses(NamedTuple):
    """Rows of each call that a batch of 4 asks for: the encoders, fusing whole, fusing to match."""

    videos: tuple[int, ...] = (4,)
    texts: tuple[int, ...] = (4,)
    fused: tuple[int, ...] = ()
    matched: tuple[int, ...] = ()
    taught: tuple[int, ...] = ()


WORK = {
    ("itc", "itm", "mlm", "mpm"): ForwardPasses(texts=(8,), fused=(8,), matched=(8,), taught=(4,)),
    ("itc",): ForwardPasses(),
    ("itm",): ForwardPasses(matched=(12,)),
    ("mlm",): ForwardPasses(fused=(4,)),
    ("mpm",): ForwardPasses(fused=(4,), taught=(4,)),
    ("itc", "itm", "mlm"): ForwardPasses(texts=(8,), fused=(4,), matched=(12,)),
    ("itm", "mpm"): ForwardPasses(fused=(4,), matched=(8,), taught=(4,)),
}


@pytest.mark.parametrize("losses", WORK, ids=" ".join)
def test_encoders_run_once_and_only_for_losses_that_are_on(
    pairs: MakePairs, losses: tuple[str, ...]
) -> None:
    model = make_pretraining_model(num_entities=5 if "mpm" in losses else None)
    batch = pairs(mlm_probability=0.4 if "mlm" in losses else None, with_regions="mpm" in losses)
    assert (batch.masked_ids is None) == ("mlm" not in losses)
    task = make_pretraining_task(model, *losses)
    text = model.text_encoder
    with ExitStack() as stack:
        spies = {
            "videos": stack.enter_context(spied(model.visual_encoder, "forward")),
            "texts": stack.enter_context(spied(text, "encode")),
            "fused": stack.enter_context(spied(text, "fuse")),
            "matched": stack.enter_context(spied(text, "fuse_first")),
        }
        if model.prompter is not None:
            teacher = model.prompter.visual_encoder
            spies["taught"] = stack.enter_context(spied(teacher, "forward"))
        found = task(batch)
    rows = {
        name: tuple(len(call.args[0]) for call in spy.call_args_list) for name, spy in spies.items()
    }
    assert ForwardPasses(**rows) == WORK[losses]
    assert {name for name in found if name.endswith("loss")} == {
        "loss",
        *(f"{name}_loss" for name in losses),
    }
    total = sum(found[f"{name}_loss"].item() for name in losses)
    assert found["loss"].item() == pytest.approx(total, rel=1e-6)


def spied(module: torch.nn.Module, method: str) -> Any:
    """Context in which the calls of a module's method are noted."""
    return mock.patch.object(module, method, wraps=getattr(module, method))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_is_the_same_alone_and_beside_others(pairs: MakePairs, loss: str) -> None:
    model, batch = make_pretraining_model(), pairs()
    with mock.patch(DRAW, return_value=NEGATIVES):
        among, alone = (make_pretraining_task(model, *on)(batch) for on in (LOSSES, [loss]))
    name = f"{loss}_loss"
    assert alone[name].item() == pytest.approx(among[name].item(), rel=1e-5)
    assert alone["loss"].item() == alone[name].item()
    alone["loss"].backward()
    with_gradient = [p for p in model.parameters() if p.grad is not None and p.grad.count_nonzero()]
    assert len(with_gradient) > 20


def test_every_trainable_parameter_gets_a_gradient(pairs: MakePairs) -> None:
    model = make_pretraining_model()
    make_pretraining_task(model)(pairs())["loss"].backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for part in ("mpm_head.", "itm_head.", "text_encoder.cls.", "vision_proj.", "temp"):
        assert any(name.startswith(part) for name in trainable), part
    # A bias of keys shifts all scores of a query alike: its gradient is 0 but for rounding.
    without = [
        name
        for name, p in trainable.items()
        if p.grad is None or (p.grad.count_nonzero() == 0 and not name.endswith("key.bias"))
    ]
    assert without == []
    assert all(p.grad is None for p in given(model.prompter).parameters())


def check_gradients(model: AlproForPretraining, loss: Tensor) -> None:
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("losses", [("mlm",), LOSSES], ids=" ".join)
def test_a_batch_without_a_masked_token_has_no_mlm_accuracy(
    pairs: MakePairs, losses: tuple[str, ...]
) -> None:
    model, batch = make_pretraining_model(), pairs()
    nothing = torch.full_like(given(batch.mlm_labels), IGNORED)
    batch = replace(batch, masked_ids=batch.text_ids, mlm_labels=nothing)
    values = make_pretraining_task(model, *losses)(batch)
    assert values["mlm_loss"].item() == 0.0
    assert "mlm_acc" not in values
    check_gradients(model, values["loss"])
    for parameter in model.text_encoder.cls.predictions.transform.parameters():
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("losses", [("mpm",), LOSSES], ids=" ".join)
def test_a_prompter_that_is_never_confident_gives_no_loss(
    pairs: MakePairs, losses: tuple[str, ...]
) -> None:
    model = make_pretraining_model()
    values = make_pretraining_task(model, *losses, entity_threshold=1.0)(pairs())
    assert values["mpm_loss"].item() == values["mpm_confident"].item() == 0.0
    assert "mpm_acc" not in values
    check_gradients(model, values["loss"])
    for parameter in given(model.mpm_head).parameters():
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("losses", [LOSSES, ("itm",), ("itm", "mpm")], ids=" ".join)
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_pair_has_no_negatives(
    pairs: MakePairs, kind: str, losses: tuple[str, ...]
) -> None:
    model, batch = make_pretraining_model(), pairs(["v0"], **KINDS[kind])
    with spied(model.text_encoder, "fuse_first") as matched:
        values = make_pretraining_task(model, *losses)(batch)
    assert all(len(call.args[0]) > 0 for call in matched.call_args_list)
    if "itc" in losses:
        assert values["itc_loss"].item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        expected = SeparateLosses(model, batch).itm(Pairs(torch.tensor([]), torch.tensor([])))
    assert values["itm_loss"].item() == pytest.approx(expected, rel=1e-5)
    check_gradients(model, values["loss"])


def test_captions_of_the_same_video_can_be_kept_from_being_negatives(pairs: MakePairs) -> None:
    model, batch = make_pretraining_model(), pairs(["v0", "v0"])
    plain, masked = (
        make_pretraining_task(model, mask_same_video=mask)(batch) for mask in (False, True)
    )
    assert plain["itc_loss"].item() > 1e-2
    assert masked["itc_loss"].item() == pytest.approx(0.0, abs=1e-6)
    assert masked["i2t_acc"].item() == masked["t2i_acc"].item() == 100.0
    with torch.no_grad():
        expected = SeparateLosses(model, batch).itm(Pairs(torch.tensor([]), torch.tensor([])))
    assert masked["itm_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_matching_starts_at_its_update(pairs: MakePairs) -> None:
    task, batch = make_pretraining_task(make_pretraining_model(), itm_start_step=3), pairs()
    with_matching = []
    for step in (1, 2, 3, 4):
        task.on_update_start(step)
        values = task(batch)
        with_matching.append("itm_loss" in values)
        total = sum(value.item() for name, value in values.items() if name.endswith("_loss"))
        assert values["loss"].item() == pytest.approx(total, rel=1e-6)
    assert with_matching == [False, False, True, True]


def test_the_temperature_is_clamped_to_its_bounds(pairs: MakePairs) -> None:
    model = make_pretraining_model()
    task, batch = make_pretraining_task(model, "itc"), pairs(["v0", "v1"])
    for before, used in ((-1.0, 0.001), (7.0, 0.5), (0.1, 0.1)):
        torch.nn.init.constant_(model.temp, before)
        task(batch)
        assert model.temp.item() == pytest.approx(used)
