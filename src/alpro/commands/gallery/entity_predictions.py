"""Predictions of a pretrained model and its prompter for validation pairs, to be looked at.

Shapes: ``T`` frames, ``S`` side of the square frames in pixels, ``P`` patches along each side,
``K`` entities.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alpro.configs.loading import ResolvedConfig
from alpro.datasets.video_datasets import TrainingSample, UnreadableVideo
from alpro.distributed.launch import launch_engine
from alpro.evaluation.evaluation_set import VALIDATION_SEED
from alpro.experiment.experiment import Experiment
from alpro.file_kinds import Media
from alpro.losses import is_confident
from alpro.runs.preflight import check_validation_inputs
from alpro.tasks.pretraining.annotations import CaptionedItem
from alpro.tasks.pretraining.batches import PretrainBatch, ValidationPairs
from alpro.tasks.pretraining.config import PretrainConfig
from alpro.tasks.pretraining.data import CaptionedSet, validation_pairs


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """A captioned video or image, its masked region, and the predictions for that."""

    item: CaptionedItem
    caption: str
    """The one that the model reads."""
    frames: np.ndarray  # (T, 3, S, S) uint8; of an image T is 1
    region: np.ndarray  # (P, P) bool, true inside
    prompter: np.ndarray  # (K,) probabilities, of the region alone
    model: np.ndarray  # (K,) probabilities, of the region among all frames and the caption
    is_confident: bool
    """Whether the prompter is sure enough for the entity loss to count the pair."""


@dataclass(frozen=True, slots=True)
class SetPredictions:
    """Some pairs of a validation set."""

    name: str
    media: Media
    num_pairs: int
    """Of the whole set."""
    pairs: list[PairPrediction]
    unreadable: list[UnreadableVideo]
    """Those that were chosen and could not be read."""


def predict_validation_pairs(
    resolved: ResolvedConfig[PretrainConfig], *, num_pairs: int
) -> list[SetPredictions]:
    """Ask prompter and model about some pairs of each validation set; others are not read.

    The pairs, their frames, captions and regions are those of every validation of the run.

    Args:
        resolved: the config of a run with PEM, whose checkpoint is ``e2e_weights_path``.
        num_pairs: how many at most, of all sets together.

    Raises:
        InputError: if a file is missing or wrong.
    """
    config = resolved.config
    with launch_engine("single", device=config.device, precision=config.precision) as engine:
        experiment = Experiment(resolved, engine=engine)
        check_validation_inputs(resolved, sets=experiment.task.data.paths("val_datasets"))
        sets = experiment.task.data.read("val_datasets")
        pairs_of = [validation_pairs(config, one) for one in sets]
        shares = split_evenly(num_pairs, sizes=[len(pairs) for pairs in pairs_of])
        model = experiment.start_model().eval()
        return [
            _predict_some(experiment, model, data, pairs, num_pairs=share)
            for data, pairs, share in zip(sets, pairs_of, shares, strict=True)
        ]


def split_evenly(count: int, *, sizes: Sequence[int]) -> list[int]:
    """Split a count evenly among sets, none beyond its size."""
    shares = [0] * len(sizes)
    for _ in range(min(count, sum(sizes))):
        left = [index for index, size in enumerate(sizes) if shares[index] < size]
        shares[min(left, key=lambda index: shares[index])] += 1
    return shares


def evenly_spaced(count: int, *, size: int) -> list[int]:
    """``count`` of the positions 0 to ``size`` - 1, evenly spaced, away from the ends."""
    assert count <= size, (count, size)
    return [(2 * place + 1) * size // (2 * count) for place in range(count)]


def _predict_some(
    experiment: Experiment[PretrainConfig],
    model: Any,
    data: CaptionedSet,
    pairs: ValidationPairs[CaptionedItem],
    *,
    num_pairs: int,
) -> SetPredictions:
    predictions, unreadable = [], []
    for index in evenly_spaced(num_pairs, size=len(pairs)):
        sample = pairs[0, index]
        if isinstance(sample, UnreadableVideo):
            unreadable.append(sample)
        else:
            predictions.append(_predict(experiment, model, sample))
    return SetPredictions(data.name, data.media, len(pairs), predictions, unreadable)


@torch.inference_mode()
def _predict(
    experiment: Experiment[PretrainConfig],
    model: Any,
    sample: TrainingSample[CaptionedItem],
) -> PairPrediction:
    """Ask about one pair, as validation does."""
    collate = experiment.task.data.collate(seed=VALIDATION_SEED)
    batch: PretrainBatch = collate([sample]).to(experiment.engine.device)
    assert batch.region is not None
    logits, targets = experiment.task.predict_entities(model, batch)
    return PairPrediction(
        item=sample.item,
        caption=collate.caption_of(sample),
        frames=sample.frames[0, :1] if batch.media == "image" else sample.frames[0],
        region=batch.region[0].cpu().numpy(),
        prompter=targets[0].cpu().numpy(),
        model=logits[0].float().softmax(dim=0).cpu().numpy(),
        is_confident=bool(is_confident(targets, threshold=experiment.config.entity_threshold)),
    )
