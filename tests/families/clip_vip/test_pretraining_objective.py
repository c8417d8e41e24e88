"""The objective of post-pretraining: any number of processes, missing captions, memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine, SingleProcess
from alpro.families.clip_vip.clip_data import ClipBatch
from alpro.families.clip_vip.config import LOSS_SPECS
from alpro.families.clip_vip.losses import GlobalFeatures, global_loss
from alpro.families.clip_vip.model import ClipVip
from alpro.families.clip_vip.pretraining import PostPretrainingObjective
from tests.distributed.jobs import on_processes
from tests.factories import CPU, IMAGE_SIZE, MEAN, STD
from tests.families.clip_vip.models import build_clip_vip
from tests.families.clip_vip.test_losses import PARAMETERS
from tests.tasks.pair_tasks import LossAndGradients, assert_same, loss_and_gradients

OMNISOURCE = "NCELearnableTempLoss_vsc_fc"
NUM_WORDS, LENGTH, NUM_FRAMES = 40, 7, 3
END = NUM_WORDS - 1
TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}


def make_model() -> ClipVip:
    torch.manual_seed(0)
    model = build_clip_vip(
        **{f"{tower}_{key}": size for tower in ("vision", "text") for key, size in TOWER.items()},
        image_size=IMAGE_SIZE,
        patch_size=IMAGE_SIZE // 2,
        vocab_size=NUM_WORDS,
        max_position_embeddings=16,
        projection_dim=12,
        temporal_size=NUM_FRAMES,
        logit_scale_init_value=2.0,
    )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def make_samples(num: int = 6, *, without_caption: tuple[int, ...] = ()) -> ClipBatch:
    generator = torch.Generator().manual_seed(1)

    def pixels(*shape: int) -> Tensor:
        shape = (*shape, 3, IMAGE_SIZE, IMAGE_SIZE)
        return torch.randint(256, shape, dtype=torch.uint8, generator=generator)

    def texts() -> tuple[Tensor, Tensor]:
        ids = torch.randint(END, (num, LENGTH), generator=generator)
        ids[:, -1] = END
        return ids, torch.ones_like(ids)

    has_caption = torch.tensor([row not in without_caption for row in range(num)])
    return ClipBatch(
        *(pixels(num, 1, NUM_FRAMES), *texts(), pixels(num, 1), *texts()),
        has_caption=has_caption,
        video_ids=[str(row) for row in range(num)],
        unreadable=[],
    )


def make_objective(
    model: ClipVip, *, engine: Engine | None = None, loss_name: str = OMNISOURCE, **changes: Any
) -> PostPretrainingObjective:
    return PostPretrainingObjective(
        model,
        engine=engine or SingleProcess(CPU, scale_loss=False),
        normalize=Normalize(MEAN, STD),
        loss_name=loss_name,
        loss_parameters=PARAMETERS.get(loss_name, {}),
        **{"evaluator": None, **changes},
    ).train()


def measured(batch: ClipBatch, **changes: Any) -> LossAndGradients:
    return loss_and_gradients(make_objective(make_model(), **changes), batch)


def assert_close(found: LossAndGradients, expected: LossAndGradients) -> None:
    # The gradient of a bias of keys is rounding noise of the scale of the largest one.
    assert_same(found, expected, tolerance=1e-4)


@pytest.mark.parametrize("name", LOSS_SPECS)
def test_the_loss_is_that_of_the_features(name: str) -> None:
    model, batch = make_model(), make_samples()
    normalize = Normalize(MEAN, STD)
    features = GlobalFeatures(
        model.encode_video(normalize(batch.frames[:, 0])).embedding,
        model.encode_text(batch.text_ids, batch.text_mask).embedding,
        model.encode_video(normalize(batch.image)).embedding,
        model.encode_text(batch.caption_ids, batch.caption_mask).embedding,
    )
    expected = global_loss(name, PARAMETERS.get(name, {}))(features, model.temperature())
    found = make_objective(model, loss_name=name)(batch)["loss"]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("counts", "without_caption"),
    [([4, 2], ()), ([3, 3], (0, 4)), ([2, 4], (0, 1)), ([3, 3], tuple(range(6)))],
)
def test_loss_and_gradients_of_two_processes_equal_one(
    counts: list[int], without_caption: tuple[int, ...]
) -> None:
    whole = make_samples(without_caption=without_caption)
    bounds = [0, *accumulate(counts)]

    def work(engine: Engine) -> tuple[float, dict[str, Any]]:
        own = slice(bounds[engine.rank], bounds[engine.rank + 1])
        share = replace(whole, **{name: part[own] for name, part in vars(whole).items()})
        objective = make_objective(make_model(), engine=engine)
        found = loss_and_gradients(objective, share, engine=engine)
        return found.loss, {name: part.numpy() for name, part in found.gradients.items()}

    expected = measured(whole)
    for loss, gradients in on_processes(len(counts), work):
        tensors = {name: torch.from_numpy(part) for name, part in gradients.items()}
        assert_close(LossAndGradients(loss, tensors), expected)


def test_gradients_with_a_cache_are_those_of_the_whole_batch() -> None:
    batch = make_samples(without_caption=(2,))
    assert_close(measured(batch, grad_cache_size=2), measured(batch))


def test_a_sample_without_a_caption_counts_as_a_video_alone() -> None:
    batch, other = make_samples(without_caption=(1,)), make_samples(without_caption=(1,))
    other.image[1] = 0
    other.caption_ids[1] = 5
    assert measured(batch).loss == measured(other).loss
    assert measured(make_samples()).loss != pytest.approx(measured(batch).loss, rel=1e-3)


def test_samples_without_captions_have_the_loss_of_their_subtitles() -> None:
    of_subtitles = measured(make_samples(), loss_name="NCELearnableTempLoss")
    assert_close(measured(make_samples(without_caption=tuple(range(6)))), of_subtitles)


@pytest.mark.parametrize("name", ["NCELearnableTempLoss", "NCELearnableTempLoss_vsc"])
def test_what_the_loss_does_not_need_is_not_encoded(name: str) -> None:
    model = make_model()
    seen: list[int] = []
    model.clipmodel.vision_model.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].shape[1])
    )
    make_objective(model, loss_name=name)(make_samples())
    assert seen == [NUM_FRAMES]


def test_the_temperature_is_clamped_before_the_forward_pass() -> None:
    model = make_model()
    torch.nn.init.constant_(model.logit_scale, 9.0)
    make_objective(model)(make_samples())
    assert model.logit_scale.exp().item() == pytest.approx(200.0)


def test_validation_is_retrieval_on_each_set() -> None:
    outcomes = {"a": {"text2video_r1": 40.0}, "b": {"text2video_r1": 20.0}}
    evaluator = mock.Mock()
    evaluator.run = lambda data: mock.Mock(flat_metrics=lambda: outcomes[data.name])
    sets: list[Any] = [SimpleNamespace(name=name) for name in outcomes]
    found = make_objective(make_model(), evaluator=evaluator).evaluate(*sets)
    assert found == {"a_text2video_r1": 40.0, "b_text2video_r1": 20.0, "text2video_r1": 30.0}
