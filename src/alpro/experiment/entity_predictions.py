"""What a pretrained model and its prompter tell of validation pairs, to be looked at.

Shapes: ``T`` frames, ``S`` side of the square frames in pixels, ``P`` patches along each side,
``K`` entities.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alpro.configs.loading import ResolvedConfig
from alpro.configs.schema import PretrainConfig
from alpro.datasets.captions import CaptionedItem, Media
from alpro.datasets.pretraining import PretrainBatch
from alpro.datasets.unreadable import UnreadableVideo
from alpro.datasets.validation_pairs import ValidationPairs
from alpro.datasets.videos import TrainingSample
from alpro.distributed.launch import launch_engine
from alpro.experiment.preflight import check_validation_inputs
from alpro.experiment.pretraining import VideoLanguageExperiment
from alpro.experiment.pretraining_data import CaptionedSet, validation_pairs
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.families.alpro.pretraining_task import predict_entity_pairs
from alpro.losses.prompted_entity import is_confident
from alpro.objectives.validation import VALIDATION_SEED
from alpro.training.precision import autocast


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """A captioned video or image, its masked region, and what is told of that."""

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
    told: list[PairPrediction]
    unreadable: list[UnreadableVideo]
    """Those that were chosen and could not be read."""


def tell_validation_pairs(
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
        experiment = VideoLanguageExperiment(resolved, engine=engine)
        check_validation_inputs(resolved, sets=experiment.set_files("val_datasets"))
        sets = experiment.read_sets("val_datasets")
        pairs_of = [validation_pairs(config, one) for one in sets]
        shares = split_evenly(num_pairs, sizes=[len(pairs) for pairs in pairs_of])
        model = experiment.start_model().eval()
        return [
            _tell_some(experiment, model, data, pairs, num_pairs=share)
            for data, pairs, share in zip(sets, pairs_of, shares, strict=True)
        ]


def split_evenly(count: int, *, sizes: Sequence[int]) -> list[int]:
    """How many to take of each of some sets: of all alike, as far as they reach."""
    shares = [0] * len(sizes)
    for _ in range(min(count, sum(sizes))):
        left = [index for index, size in enumerate(sizes) if shares[index] < size]
        shares[min(left, key=lambda index: shares[index])] += 1
    return shares


def evenly_spaced(count: int, *, size: int) -> list[int]:
    """``count`` of the positions 0 to ``size`` - 1, evenly spaced, away from the ends."""
    assert count <= size, (count, size)
    return [(2 * place + 1) * size // (2 * count) for place in range(count)]


def _tell_some(
    experiment: VideoLanguageExperiment,
    model: AlproForPretraining,
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
            predictions.append(_tell(experiment, model, sample))
    return SetPredictions(data.name, data.media, len(pairs), predictions, unreadable)


@torch.inference_mode()
def _tell(
    experiment: VideoLanguageExperiment,
    model: AlproForPretraining,
    sample: TrainingSample[CaptionedItem],
) -> PairPrediction:
    """Ask about one pair, as validation does."""
    collate, device = experiment.build_collate(seed=VALIDATION_SEED), experiment.engine.device
    batch: PretrainBatch = collate([sample]).to(device)
    assert batch.region is not None
    with autocast(experiment.precision, device):
        video = model.encode_video(experiment.normalize(batch.frames))
        fused = model.fuse(model.encode_text(batch.text_ids, batch.text_mask), video)
        logits, targets = predict_entity_pairs(model, batch, fused, normalize=experiment.normalize)
    return PairPrediction(
        item=sample.item,
        caption=collate.caption_of(sample),
        frames=sample.frames[:1] if batch.media == "image" else sample.frames,
        region=batch.region[0].cpu().numpy(),
        prompter=targets[0].cpu().numpy(),
        model=logits[0].float().softmax(dim=0).cpu().numpy(),
        is_confident=bool(is_confident(targets, threshold=experiment.config.entity_threshold)),
    )
