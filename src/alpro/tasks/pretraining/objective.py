"""Losses over matching pairs with their accuracies, and the task that validates them.

Shapes: B pairs on this rank, G pairs on all ranks.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alpro.datasets.video_datasets import UnreadableVideo
from alpro.distributed.engine import Engine, SingleProcess, autocast
from alpro.errors import InputError
from alpro.evaluation.encoding import encode_clips
from alpro.evaluation.evaluation_set import (
    VALIDATION_SEED,
    Progress,
    check_unreadable,
    evaluation_mode,
)
from alpro.losses import is_confident, masked_language_loss, matching_labels, prompted_entity_loss
from alpro.modeling.contracts import DualEncoder, TextFeatures, VideoFeatures
from alpro.modeling.grad_cache import grad_cached
from alpro.tasks.pairs import (
    GatheredBatch,
    contrast_loss,
    contrast_with_all,
    gather_batch_metadata,
    match_loss,
)
from alpro.tasks.pretraining.batches import IGNORED, PretrainBatch
from alpro.tasks.pretraining.data import PairSet
from alpro.training.objective import Objective


class Ratio(NamedTuple):
    """A share as a fraction, which adds up over batches."""

    hits: Tensor
    of: Tensor | int


@dataclass(frozen=True, slots=True)
class LossWithMetrics:
    """One loss of a batch, a mean over `count` items, with its accuracies."""

    loss: Tensor
    count: Tensor | int
    rates: Mapping[str, Ratio]

    def values(self, name: str) -> dict[str, Tensor]:
        """``<name>_loss`` and the shares in percent, each a scalar, without shares of nothing."""
        shares = {key: 100.0 * rate.hits / rate.of for key, rate in self.rates.items() if rate.of}
        return {f"{name}_loss": self.loss, **shares}


def measure_contrast(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> LossWithMetrics:
    """VTC of B pairs, video features (B, C, ...), against the gathered pairs of all ranks.

    ``i2t_acc`` is the share of videos and images whose nearest caption is their own, ``t2i_acc``
    the same of captions.
    """
    scores = contrast_with_all(video, text, gathered=gathered)
    v2t, t2v = scores
    # The right column of row i is the place of pair i in the global batch.
    own = torch.arange(gathered.own.start, gathered.own.stop, device=v2t.device)  # (B,)
    rates = {"i2t_acc": _rate(v2t, own), "t2i_acc": _rate(t2v, own)}
    return LossWithMetrics(contrast_loss(scores, gathered=gathered), len(v2t), rates)


def measure_matching(logits: Tensor, num_positive: int, *, engine: Engine) -> LossWithMetrics:
    """VTM over (B+M, 2) logits, the B positives first."""
    labels = matching_labels(len(logits), num_positive, device=logits.device)
    rates = {"itm_acc": _rate(logits, labels)}
    return LossWithMetrics(match_loss(logits, num_positive, engine=engine), len(logits), rates)


def mlm_loss_and_accuracy(logits: Tensor, labels: Tensor) -> LossWithMetrics:
    """MLM over the (n, V) logits of the n tokens to be predicted; `labels` is (B, L)."""
    wanted = labels[labels != IGNORED]  # (n,)
    rates = {"mlm_acc": _rate(logits, wanted)}
    return LossWithMetrics(masked_language_loss(logits, wanted), len(wanted), rates)


def measure_entities(logits: Tensor, targets: Tensor, *, threshold: float) -> LossWithMetrics:
    """PEM over (B, K) logits and the prompter's probabilities.

    ``mpm_acc`` is the share of confident samples whose entity model and prompter agree on,
    ``mpm_confident`` the share of confident samples.
    """
    # Samples of which the prompter is not confident count in neither loss nor accuracy.
    sure = is_confident(targets, threshold=threshold)  # (B,)
    agree = (logits.argmax(dim=-1) == targets.argmax(dim=-1)) & sure
    count = sure.sum()
    rates = {"mpm_acc": Ratio(agree.sum(), count), "mpm_confident": Ratio(count, len(sure))}
    return LossWithMetrics(prompted_entity_loss(logits, targets, threshold=threshold), count, rates)


def _rate(scores: Tensor, labels: Tensor) -> Ratio:
    """Accuracy of the best column."""
    return Ratio((scores.detach().argmax(dim=-1) == labels).sum(), len(labels))


class PairObjective(Objective):
    """Losses over matching pairs of a caption and a video or an image."""

    model: Any  # an nn.Module that is a DualEncoder

    def __init__(
        self,
        model: DualEncoder,
        *,
        engine: Engine,
        normalize: nn.Module,  # uint8 frames to the model's input
        mask_same_video: bool,  # captions of one video are not each other's negatives
        precision: str,
        allow_missing_videos: bool,  # validate without unreadable ones
        progress: Progress,
        grad_cache_size: int = 0,  # items per forward pass of training, 0 for all at once
    ) -> None:
        super().__init__()
        self.model = model
        self._engine = engine
        self._normalize = normalize
        self._mask_same_video = mask_same_video
        self._precision = precision
        self._allow_missing_videos = allow_missing_videos
        self._progress = progress
        self._grad_cache_size = grad_cache_size

    def measure_all(
        self, batch: PretrainBatch, *, engine: Engine, generator: torch.Generator
    ) -> Mapping[str, LossWithMetrics]:
        """Losses of B pairs, by name, with the pairs of an engine's ranks as negatives.

        The engine may be another one than the job's; the generator is on its device.
        """
        raise NotImplementedError

    @torch.inference_mode()
    def evaluate(self, *data: PairSet) -> dict[str, float]:
        """Mean losses and shares over all pairs of all sets, each compared with its own batch.

        The numbers are the same on every rank, and for every number of ranks: random draws depend
        on a batch's place in its set, and all sums are exact.

        Returns:
            ``loss``, the sum of the mean losses; ``<name>_loss`` and shares in percent.

        Raises:
            InputError: if a pair cannot be read and that is not allowed, or none can.
        """
        # Collect numerators and denominators of this rank's batches, without dropout.
        engine = self._engine
        terms: dict[str, list[float]] = defaultdict(list)
        with evaluation_mode(self.model):
            for one in data:
                lost = chain.from_iterable(engine.gather_objects(self._measure_set(one, terms)))
                check_unreadable(one, list(lost), allowed=self._allow_missing_videos)
        # Sum over the ranks; fsum does not depend on the order.
        gathered = engine.gather_objects(dict(terms))
        names = dict.fromkeys(name for part in gathered for name in part)
        totals = {
            name: math.fsum(x for part in gathered for x in part.get(name, ())) for name in names
        }
        if not totals:
            names_of_sets = ", ".join(one.name for one in data)
            raise InputError(f"{names_of_sets}: none of the pairs can be read.")
        # Divide; the total loss is the sum of the means.
        means = {
            name: total / max(totals[f"{name}/"], 1.0)
            for name, total in totals.items()
            if not name.endswith("/")
        }
        loss = sum(value for name, value in means.items() if name.endswith("_loss"))
        return {"loss": loss, **means}

    def _measure_set(self, data: PairSet, terms: dict[str, list[float]]) -> list[UnreadableVideo]:
        """Note the terms of this rank's batches; return the unreadable videos."""
        # One rank's batch is compared with itself, so that metrics do not depend on the ranks.
        device, unreadable = self._engine.device, list[UnreadableVideo]()
        alone = SingleProcess(device, scale_loss=False)
        batches = self._progress(data.loader, data.name, "batch")
        for place, batch in zip(data.own_batches, batches, strict=True):
            unreadable += batch.unreadable
            if batch.video_ids:
                generator = torch.Generator(device)
                generator.manual_seed(VALIDATION_SEED + place.start)
                with autocast(self._precision, device):
                    losses = self.measure_all(batch.to(device), engine=alone, generator=generator)
                _note(terms, losses)
        return unreadable

    def _encode_videos(self, frames: Tensor) -> VideoFeatures:
        """Features (B, 1, ...) of (B, 1, T, 3, S, S) uint8 frames."""
        return encode_clips(
            self.model, frames, normalize=self._normalize, grad_cache_size=self._grad_cache_size
        )

    def _encode_texts(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        return grad_cached(self.model.encode_text, ids, mask, size=self._grad_cache_size)

    def _gathered(self, batch: PretrainBatch, *, engine: Engine) -> GatheredBatch:
        return gather_batch_metadata(
            batch.video_ids,
            num_tokens=batch.text_ids.shape[1],
            temperature=self.model.temperature(),
            engine=engine,
            mask_same_video=self._mask_same_video,
        )


def _note(terms: dict[str, list[float]], losses: Mapping[str, LossWithMetrics]) -> None:
    """Append numerators under ``<key>``, denominators under ``<key>/``."""
    for name, one in losses.items():
        count = float(one.count)
        terms[f"{name}_loss"].append(float(one.loss) * count)
        terms[f"{name}_loss/"].append(count)
        for key, rate in one.rates.items():
            terms[key].append(100.0 * float(rate.hits))
            terms[f"{key}/"].append(float(rate.of))
