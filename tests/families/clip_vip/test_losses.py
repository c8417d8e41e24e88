"""Contrastive losses of CLIP-ViP: small numbers by hand, loops as oracles, and properties."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alpro.distributed.engine import autocast
from alpro.families.clip_vip.config import LOSS_SPECS
from alpro.families.clip_vip.losses import LOSSES, GlobalFeatures, global_loss
from tests.factories import CPU

PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "NCEContrastiveLoss": {"temp": 0.2},
    "TripletContrastiveLoss": {"margin": 0.5, "measure": "cosine", "max_violation": False},
    "HardNegLoss": {"hard_negative_num": 2},
    "MILNCEContrastiveLoss": {"temp": 0.2},
}
TEMPERATURE = 0.5
RIGHT, UP, LEFT = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]

every_loss = pytest.mark.parametrize("name", LOSS_SPECS)


def loss_of(name: str, features: GlobalFeatures, **parameters: Any) -> Tensor:
    compute = global_loss(name, {**PARAMETERS.get(name, {}), **parameters})
    return compute(features, torch.tensor(TEMPERATURE))


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def some_features(num: int = 4) -> GlobalFeatures:
    return GlobalFeatures(*(unit(num, 6, seed=seed) for seed in range(4)))


def rows_of(features: GlobalFeatures, rows: list[int]) -> GlobalFeatures:
    return GlobalFeatures(*(None if x is None else x[rows] for x in features))  # type: ignore[arg-type]  # only optional ones


def pairs(videos: list[list[float]], subtitles: list[list[float]]) -> GlobalFeatures:
    return GlobalFeatures(torch.tensor(videos), torch.tensor(subtitles))


def softplus(x: float) -> float:
    """Cross-entropy of a right answer and one whose logit is larger by x."""
    return math.log1p(math.exp(x))


def cross_entropy(right: float, wrong: list[float]) -> float:
    return -right + math.log(sum(math.exp(x) for x in (right, *wrong)))


def logits_of(a: Tensor, b: Tensor, temperature: float = TEMPERATURE) -> list[list[float]]:
    return (a.double() @ b.double().t() / temperature).tolist()


def test_nce_of_two_pairs_by_hand() -> None:
    # Logits [[2, 2], [0, 0]] at temperature 0.5, [[5, 5], [0, 0]] at 0.2.
    features = pairs([RIGHT, UP], [RIGHT, RIGHT])
    by_hand = softplus(0) + (softplus(-2) + softplus(2)) / 2
    assert loss_of("NCELearnableTempLoss", features).item() == pytest.approx(by_hand)
    by_hand = softplus(0) + (softplus(-5) + softplus(5)) / 2
    assert loss_of("NCEContrastiveLoss", features, temp=0.2).item() == pytest.approx(by_hand)


def test_nce_with_dual_softmax_of_two_pairs_by_hand() -> None:
    # Logits [[2, 2], [0, 0]]: the videos' rows become [2p, 2p] and [0, 0], the texts' [1, 0] twice.
    found = loss_of("NCELearnableTempDSLLoss", pairs([RIGHT, UP], [RIGHT, RIGHT]))
    assert found.item() == pytest.approx(softplus(0) + (softplus(-1) + softplus(1)) / 2)
    # Logits [[2, 0], [0, 2]]: all rows have 2p at their own place and 0 elsewhere.
    p = math.exp(2) / (math.exp(2) + 1)
    found = loss_of("NCELearnableTempDSLLoss", pairs([RIGHT, UP], [RIGHT, UP]))
    assert found.item() == pytest.approx(2 * softplus(-2 * p))


@pytest.mark.parametrize(
    ("max_violation", "of_videos", "of_texts"),
    [(False, 0 + 1.5 + (0.5 + 1.5), 0.5 + (0.5 + 1.5) + 0), (True, 1.5 + 1.5, 0.5 + 1.5)],
)
def test_triplet_loss_by_hand(max_violation: bool, of_videos: float, of_texts: float) -> None:
    # Cosines [[1, 0, -1], [1, 0, -1], [0, 1, 0]].
    features = pairs([RIGHT, RIGHT, UP], [RIGHT, UP, LEFT])
    found = loss_of("TripletContrastiveLoss", features, max_violation=max_violation)
    assert found.item() == pytest.approx(of_videos + of_texts)


def test_triplet_loss_of_order_embeddings_by_hand() -> None:
    # Scores [[0, -1], [-0.4, -0.2]]: a text costs what it has in excess of the video.
    features = pairs([RIGHT, [0.6, 0.8]], [RIGHT, UP])
    found = loss_of("TripletContrastiveLoss", features, measure="order")
    assert found.item() == pytest.approx((0.5 - 0.4 + 0.2) + (0.5 - 0.4))


def test_hard_negatives_by_hand() -> None:
    # Cosines as above; the hardest text of each video, the hardest video of each text.
    features = pairs([RIGHT, RIGHT, UP], [RIGHT, UP, LEFT])
    found = loss_of("HardNegLoss", features, hard_negative_num=1)
    of_videos = (softplus(-1) + softplus(1) + softplus(1)) / 3
    of_texts = (softplus(0) + softplus(1) + softplus(-1)) / 3
    assert found.item() == pytest.approx(of_videos + of_texts)


def test_all_negatives_are_as_hard_as_there_are() -> None:
    features = some_features()
    every = loss_of("NCEContrastiveLoss", features, temp=1.0)
    for num in (3, 50):
        torch.testing.assert_close(loss_of("HardNegLoss", features, hard_negative_num=num), every)


@pytest.mark.parametrize("num_texts", [1, 3])
def test_mil_nce_equals_its_formula(num_texts: int) -> None:
    features = GlobalFeatures(unit(4, 6), unit(4 * num_texts, 6, seed=1))
    x = np.array(logits_of(*features[:2], temperature=0.2)).reshape(4, 4, num_texts)
    losses = []
    for i in range(4):
        rows = [x[i, j] for j in range(4) if j != i]
        candidates = np.exp(np.concatenate([*rows, *x[:, i]])).sum()
        losses.append(np.log(candidates) - np.log(np.exp(x[i, i]).sum()))
    found = loss_of("MILNCEContrastiveLoss", features)
    assert found.item() == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("captioned", [[0, 1, 2, 3], [2, 0]])
def test_omnisource_loss_equals_its_formula(captioned: list[int]) -> None:
    videos, subtitles, images, captions = (x for x in some_features()[:4] if x is not None)
    texts = [(subtitles[i], i) for i in range(4)] + [(captions[i], i) for i in captioned]
    x = logits_of(videos, torch.stack([text for text, _ in texts]))
    of_texts: list[list[float]] = [[], []]
    for place, (_, i) in enumerate(texts):
        others = [x[i][k] for k, (_, owner) in enumerate(texts) if owner != i]
        to_text = cross_entropy(x[i][place], others)
        to_video = cross_entropy(x[i][place], [x[j][place] for j in range(4) if j != i])
        of_texts[place >= 4].append(to_text + to_video)
    features = GlobalFeatures(
        videos, subtitles, images[captioned], captions[captioned], torch.tensor(captioned)
    )
    vsc = loss_of("NCELearnableTempLoss_vsc", features)
    assert vsc.item() == pytest.approx(np.mean(of_texts[0]) + np.mean(of_texts[1]), rel=1e-5)
    frames = loss_of("NCELearnableTempLoss", GlobalFeatures(images[captioned], captions[captioned]))
    torch.testing.assert_close(loss_of("NCELearnableTempLoss_vsc_fc", features), vsc + frames)


def test_losses_that_are_sums_or_concatenations_of_nce() -> None:
    videos, subtitles, images, captions = (x for x in some_features()[:4] if x is not None)

    def nce(a: Tensor, b: Tensor) -> Tensor:
        return loss_of("NCELearnableTempLoss", GlobalFeatures(a, b))

    features = some_features()
    both = nce(videos, subtitles) + nce(videos, captions)
    expected = {
        "NCELearnableTempLoss_vs_vc": both,
        "NCELearnableTempLoss_vs_vc_fc": both + nce(images, captions),
        "VidImgDivideNCELearnableTempLoss": nce(videos, subtitles) + nce(images, captions),
        "VidImgNCELearnableTempLoss": nce(
            torch.cat([videos, images]), torch.cat([subtitles, captions])
        ),
    }
    for name, loss in expected.items():
        torch.testing.assert_close(loss_of(name, features), loss)


def test_captions_belong_to_the_videos_that_are_named() -> None:
    features = some_features()
    assert features.captions is not None
    reordered = features._replace(
        captions=features.captions[[2, 0, 3, 1]], captioned=torch.tensor([2, 0, 3, 1])
    )
    for name in ("NCELearnableTempLoss_vs_vc", "NCELearnableTempLoss_vsc"):
        torch.testing.assert_close(loss_of(name, reordered), loss_of(name, features))


@pytest.mark.parametrize("name", [n for n, spec in LOSS_SPECS.items() if len(spec.features) > 2])
def test_a_loss_without_captions_is_that_of_the_subtitles(name: str) -> None:
    features, none = some_features(), torch.zeros(0, 6)
    rows = torch.zeros(0, dtype=torch.long)
    without = features._replace(images=none, captions=none, captioned=rows)
    found = loss_of(name, without)
    torch.testing.assert_close(found, loss_of("NCELearnableTempLoss", features))


@every_loss
def test_a_loss_does_not_depend_on_the_order_of_samples(name: str) -> None:
    features = some_features()
    found = loss_of(name, rows_of(features, [2, 0, 3, 1]))
    torch.testing.assert_close(found, loss_of(name, features))


@every_loss
def test_a_loss_uses_what_its_entry_names(name: str) -> None:
    spec, features = LOSS_SPECS[name], some_features()
    tensors = {field: x for field, x in features._asdict().items() if x is not None}
    assert len(tensors) == 4
    temperature = torch.tensor(TEMPERATURE, requires_grad=True)
    for tensor in tensors.values():
        tensor.requires_grad_()
    global_loss(name, PARAMETERS.get(name, {}))(features, temperature).backward()
    used = {field for field, x in tensors.items() if x.grad is not None}
    assert used == set(spec.features)
    assert (temperature.grad is not None) == spec.trained_temperature
    assert set(PARAMETERS.get(name, {})) == set(spec.parameters)


@every_loss
def test_one_sample_has_no_loss_and_finite_gradients(name: str) -> None:
    features = some_features(1)
    features.videos.requires_grad_()
    loss = loss_of(name, features)
    loss.backward()
    # Only the loss of all in one matrix finds negatives: the frame and its caption.
    if name != "VidImgNCELearnableTempLoss":
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert features.videos.grad is not None
    assert features.videos.grad.isfinite().all()


@every_loss
def test_a_loss_is_computed_in_full_precision(name: str) -> None:
    features = some_features()
    with autocast("bf16", CPU):
        found = loss_of(name, features)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss_of(name, features))


@pytest.mark.parametrize("name", [name for name, spec in LOSS_SPECS.items() if spec.can_exclude])
def test_excluded_pairs_are_no_negatives(name: str) -> None:
    # Sample 2 has no pairs with the others, hence no loss and no part in theirs.
    exclude = torch.zeros(3, 3, dtype=torch.bool)
    exclude[2, :2] = exclude[:2, 2] = True
    features = some_features(3)._replace(exclude=exclude)
    features.videos.requires_grad_()
    loss = loss_of(name, features)
    two = rows_of(some_features(3), [0, 1])
    torch.testing.assert_close(loss, loss_of(name, two) * 2 / 3)
    loss.backward()
    assert features.videos.grad is not None
    assert features.videos.grad.isfinite().all()


def test_both_tables_have_the_same_names() -> None:
    assert LOSSES.keys() == LOSS_SPECS.keys()
