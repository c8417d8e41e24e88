"""Validation of both stages: seeded, over all pairs, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from alpro.configs.loading import load_config
from alpro.datasets.transforms.normalize import Normalize, erase_outside
from alpro.distributed.engine import Engine, SingleProcess
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import silent_progress
from alpro.experiment.experiment import Experiment
from alpro.families.alpro.pretraining_model import AlproForPretraining, Prompter
from alpro.tasks.pretraining.batches import IGNORED, PretrainBatch
from alpro.tasks.pretraining.config import PrompterConfig
from alpro.tasks.pretraining.data import PairSet
from tests.evaluation.ranks import on_ranks
from tests.factories import CPU, MEAN, STD, write_videos
from tests.pretraining_factories import (
    LOSSES,
    PretrainExperiment,
    given,
    make_pretraining_model,
    make_pretraining_task,
)
from tests.training.toys import make_plan

SHARES = ("i2t_acc", "t2i_acc", "itm_acc", "mlm_acc", "mpm_acc", "mpm_confident")


def validate(
    experiment: PretrainExperiment, model: AlproForPretraining, *flags: str, **changes: Any
) -> dict[str, float]:
    """The numbers of one process."""
    return validate_on_ranks(experiment, model, *flags, size=1, **changes)[0]


def validate_on_ranks(
    experiment: PretrainExperiment,
    model: AlproForPretraining,
    *flags: str,
    size: int,
    **changes: Any,
) -> list[dict[str, float]]:
    """The numbers of each of several processes, or the error that all of them end with."""
    resolved = experiment.resolved(*flags, **changes)
    models = [model, *(deepcopy(model) for _ in range(size - 1))]

    def work(engine: Engine) -> dict[str, float] | InputError:
        definition = Experiment(resolved, engine=engine).task
        model = models[engine.rank]
        task = definition.build_objective(model, plan=make_plan(), progress=silent_progress)
        try:
            return task.evaluate(*definition.data.validation())
        except InputError as error:
            return error

    found = on_ranks(size, work)
    errors = [one for one in found if isinstance(one, InputError)]
    if errors:
        assert [str(error) for error in errors] == [str(errors[0])] * size
        raise errors[0]
    return [one for one in found if isinstance(one, dict)]


def test_validation_gives_the_same_numbers_on_every_call(experiment: PretrainExperiment) -> None:
    more = PretrainExperiment(experiment.root, num_val=7)  # so many to draw negatives from
    more.values["val_batch_size"] = 7
    model = make_pretraining_model(dropout=0.3).train()
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(validate(more, model))
    assert values[0] == values[1]
    assert values[0].keys() == {"loss", *(f"{name}_loss" for name in LOSSES), *SHARES}
    total = sum(values[0][f"{name}_loss"] for name in LOSSES)
    assert values[0]["loss"] == pytest.approx(total)
    assert model.training
    assert not given(model.prompter).training


@pytest.mark.parametrize("size", [2, 3, 5])
def test_validation_gives_the_same_numbers_on_any_number_of_ranks(
    experiment: PretrainExperiment, size: int
) -> None:
    # 4 batches of videos and 2 of images: 3 ranks have different numbers of them, some of 5 none.
    more = PretrainExperiment(experiment.root, num_val=10, num_val_images=4)
    more.values["val_batch_size"] = 3
    model = make_pretraining_model()
    alone = validate(more, model)
    assert validate_on_ranks(more, model, size=size) == [alone] * size


def validation_sets(experiment: PretrainExperiment) -> list[PairSet]:
    """Those of a single rank."""
    alone = SingleProcess(CPU, scale_loss=False)
    return Experiment(experiment.resolved(), engine=alone).task.data.validation()


def batches_of(experiment: PretrainExperiment) -> list[PretrainBatch]:
    """Those of a single rank."""
    return [batch for data in validation_sets(experiment) for batch in data.loader]


@torch.no_grad()
def test_losses_are_means_over_their_own_items(experiment: PretrainExperiment) -> None:
    """Not over batches: there is one of one pair, which would count as much as those of two."""
    model = make_pretraining_model().eval()
    normalize, prompter = Normalize(MEAN, STD), given(model.prompter)
    pairs, words, entities, best, found = [], [], [], [], []
    for batch in batches_of(experiment):
        video = model.encode_video(normalize(batch.frames[:, 0]))
        text = model.encode_text(batch.text_ids, batch.text_mask)
        masked = model.encode_text(given(batch.masked_ids), batch.text_mask)
        scores = video.embedding @ text.embedding.t() / model.temp
        for one in (scores, scores.t()):
            pairs += (-one.log_softmax(dim=1).diag() / 2).tolist()
        found += (scores.argmax(dim=1) == torch.arange(len(scores))).tolist()
        labels = given(batch.mlm_labels)
        logits = model.text_encoder.predict_words(model.fuse(masked, video)[:, : labels.shape[1]])
        chosen = labels != IGNORED
        words += (-logits[chosen].log_softmax(dim=1)).gather(1, labels[chosen][:, None]).tolist()
        region = given(batch.region)
        frames = normalize(erase_outside(batch.frames[:, 0], region))
        targets = prompter.entity_probabilities(frames, batch.media)
        predicted = model.predict_entities(
            model.fuse(text, video), num_text_tokens=labels.shape[1], region=region
        )
        entities += (-(targets * predicted.log_softmax(dim=1)).sum(dim=1)).tolist()
        best += targets.amax(dim=1).tolist()
    assert [len(batch.video_ids) for batch in batches_of(experiment)] == [2, 1, 2]
    threshold = sum(sorted(best)[1:3]) / 2  # three of the five are above it
    confident = [loss for loss, top in zip(entities, best, strict=True) if top >= threshold]
    values = validate(experiment, model, "--entity_threshold", repr(threshold))
    assert values["itc_loss"] == pytest.approx(sum(pairs) / 5, rel=1e-5)
    assert values["mlm_loss"] == pytest.approx(np.mean(words), rel=1e-5)
    assert values["mpm_loss"] == pytest.approx(np.mean(confident), rel=1e-5)
    assert values["i2t_acc"] == pytest.approx(100 * np.mean(found))
    assert values["mpm_confident"] == 60.0


def test_masks_and_regions_are_the_same_in_every_epoch(experiment: PretrainExperiment) -> None:
    first, second = batches_of(experiment), batches_of(experiment)
    assert {batch.media for batch in first} == {"video", "image"}
    for one, other in zip(first, second, strict=True):
        for name in ("frames", "masked_ids", "mlm_labels", "region"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize("losses", [(), ("itc",), ("itm", "mlm"), ("mpm",)], ids=" ".join)
def test_only_losses_that_are_on_are_measured(
    experiment: PretrainExperiment, losses: Sequence[str]
) -> None:
    chosen = losses or LOSSES
    switches = {f"use_{name}": int(name in chosen) for name in LOSSES}
    model = make_pretraining_model(num_entities=5 if "mpm" in chosen else None)
    values = validate(experiment, model, **switches)
    names = {name for name in values if name.endswith("loss")}
    assert names == {"loss", *(f"{name}_loss" for name in chosen)}


def test_matching_is_validated_before_its_first_update(experiment: PretrainExperiment) -> None:
    values = validate(experiment, make_pretraining_model(), itm_start_ratio=0.9)
    assert values["itm_loss"] > 0


@pytest.mark.parametrize("size", [1, 2])
def test_unreadable_pairs_are_listed(experiment: PretrainExperiment, size: int) -> None:
    write_videos(experiment.root / "videos", ["val0", "val2"], broken=["val0", "val2"])
    with pytest.raises(InputError) as caught:
        validate_on_ranks(experiment, make_pretraining_model(), size=size)
    message = str(caught.value)
    assert message.startswith("tiny val: 2 of 3 videos or images named in ")
    assert "  val0: made to be unreadable\n  val2: made to be unreadable\n" in message
    assert "allow_missing_videos" in message


@pytest.mark.parametrize("allowed", [False, True])
def test_an_unreadable_image_is_listed(experiment: PretrainExperiment, allowed: bool) -> None:
    (experiment.root / "images/val1.png").write_text("no image")
    flags = ("--allow_missing_videos", str(int(allowed)))
    if not allowed:
        with pytest.raises(InputError, match="tiny val images: 1 of 2 .*\n  val1.png: "):
            validate(experiment, make_pretraining_model(), *flags)
        return
    assert validate(experiment, make_pretraining_model(), *flags)["itc_loss"] > 0


def test_unreadable_pairs_are_left_out_if_allowed(experiment: PretrainExperiment) -> None:
    experiment.values["val_datasets"] = [experiment.dataset("val")]
    whole = validate(experiment, make_pretraining_model(), "--use_itm", "0")
    # val2 stands alone in the last batch: without it the other two are among themselves, as before.
    write_videos(experiment.root / "videos", ["val2"], broken=["val2"])
    flags = ("--use_itm", "0", "--allow_missing_videos", "1")
    left = validate(experiment, make_pretraining_model(), *flags)
    assert left["itc_loss"] == pytest.approx(whole["itc_loss"] * 3 / 2, rel=1e-6)


@pytest.mark.parametrize("size", [1, 2])
def test_a_set_without_readable_pairs_is_an_error(
    experiment: PretrainExperiment, size: int
) -> None:
    names = [f"val{index}" for index in range(3)]
    write_videos(experiment.root / "videos", names, broken=names)
    experiment.values["val_datasets"] = [experiment.dataset("val")]
    with pytest.raises(InputError, match="tiny val: none of the pairs can be read"):
        validate_on_ranks(
            experiment, make_pretraining_model(), "--allow_missing_videos", "1", size=size
        )


def test_the_prompter_is_validated_in_the_same_way(experiment: PretrainExperiment) -> None:
    resolved = load_config(PrompterConfig, experiment.prompting())

    def values(model: Prompter, engine: Engine) -> dict[str, float]:
        definition = Experiment(resolved, engine=engine).task
        task = definition.build_objective(model, plan=make_plan(), progress=silent_progress)
        sets: list[PairSet] = definition.data.validation()
        batches = [batch for data in sets for batch in data.loader]
        assert all(batch.masked_ids is batch.region is None for batch in batches)
        return task.evaluate(*sets)

    model = make_pretraining_model()
    alone = values(given(model.prompter), SingleProcess(CPU, scale_loss=False))
    assert alone.keys() == {"loss", "itc_loss", "i2t_acc", "t2i_acc"}
    assert alone["loss"] == alone["itc_loss"] > 0
    copies = [deepcopy(given(model.prompter)) for _ in range(2)]
    assert on_ranks(2, lambda engine: values(copies[engine.rank], engine)) == [alone] * 2


def test_validation_keeps_no_gradients(experiment: PretrainExperiment) -> None:
    model = make_pretraining_model()
    task = make_pretraining_task(model)
    task.evaluate(*validation_sets(experiment))
    assert all(p.grad is None for p in model.parameters())
