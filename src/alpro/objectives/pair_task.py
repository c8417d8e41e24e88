"""What both stages of pretraining share: how losses over matching pairs are validated.

Shapes: B pairs on this rank, G pairs on all ranks.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alpro.datasets.pretraining import IGNORED, PretrainBatch
from alpro.distributed.engine import Engine, SingleProcess
from alpro.evaluation.encoding import encode_clips
from alpro.evaluation.evaluation_set import Progress, evaluation_mode
from alpro.losses.masked_modeling import is_confident, masked_language_loss, prompted_entity_loss
from alpro.losses.matching import matching_labels
from alpro.modeling.contracts import DualEncoder, TextFeatures, VideoFeatures
from alpro.modeling.grad_cache import grad_cached
from alpro.objectives.pairs import (
    GatheredBatch,
    contrast_loss,
    contrast_with_all,
    gather_batch_metadata,
    match_loss,
)
from alpro.objectives.validation import LossWithMetrics, PairSet, Ratio, mean_losses
from alpro.training.task import Task


def measure_contrast(
    video: VideoFeatures, text: TextFeatures, *, gathered: GatheredBatch
) -> LossWithMetrics:
    """VTC; ``i2t_acc``: videos and images whose own caption is the nearest, ``t2i_acc``: captions.

    Args:
        video: of B pairs, (B, C, ...).
        text: of the same pairs.
        gathered: the pairs of all ranks.
    """
    scores = contrast_with_all(video, text, gathered=gathered)
    num_pairs = len(scores.video_to_text)
    own = gathered.own
    right = torch.arange(own.start, own.stop, device=scores.video_to_text.device)  # (B,)
    rates = {
        "i2t_acc": _rate(scores.video_to_text, right),
        "t2i_acc": _rate(scores.text_to_video, right),
    }
    return LossWithMetrics(contrast_loss(scores, gathered=gathered), num_pairs, rates)


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

    ``mpm_acc`` is how often model and prompter name the same entity where the prompter is
    confident, ``mpm_confident`` how often it is.
    """
    sure = is_confident(targets, threshold=threshold)  # (B,)
    agree = (logits.argmax(dim=-1) == targets.argmax(dim=-1)) & sure
    count = sure.sum()
    rates = {"mpm_acc": Ratio(agree.sum(), count), "mpm_confident": Ratio(count, len(sure))}
    return LossWithMetrics(prompted_entity_loss(logits, targets, threshold=threshold), count, rates)


def _rate(scores: Tensor, labels: Tensor) -> Ratio:
    """How often the best of the columns is the right one."""
    return Ratio((scores.detach().argmax(dim=-1) == labels).sum(), len(labels))


class PairTask(Task):
    """Losses over matching pairs of a caption and a video or an image."""

    model: Any  # an nn.Module that is a DualEncoder

    def __init__(
        self,
        model: DualEncoder,
        *,
        engine: Engine,
        normalize: nn.Module,
        mask_same_video: bool,
        precision: str,
        allow_missing_videos: bool,
        progress: Progress,
        grad_cache_size: int = 0,
    ) -> None:
        """Collect what any of the losses needs.

        Args:
            model: what is trained.
            engine: the job, for the gathered contrastive loss.
            normalize: uint8 frames to what the model expects.
            mask_same_video: captions of one video are not each other's negatives.
            precision: of validation's forward passes.
            allow_missing_videos: validate without what cannot be read.
            progress: shows validation's batches.
            grad_cache_size: clips, texts or pairs that go through the model at a time in training,
                0 for all at once.
        """
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
        """The losses of B pairs among those of an engine's ranks, by name.

        Args:
            batch: the pairs.
            engine: may be another one than the job's.
            generator: on the model's device, draws what is random.
        """
        raise NotImplementedError

    def evaluate(self, *data: PairSet) -> dict[str, float]:
        """Mean losses and accuracies; each pair is compared with those of its validation batch."""
        alone = SingleProcess(self._engine.device, scale_loss=False)

        def measure(
            batch: PretrainBatch, generator: torch.Generator
        ) -> Mapping[str, LossWithMetrics]:
            return self.measure_all(batch, engine=alone, generator=generator)

        with evaluation_mode(self.model):
            return mean_losses(
                data,
                measure,
                engine=self._engine,
                precision=self._precision,
                allow_missing=self._allow_missing_videos,
                progress=self._progress,
            )

    def _encode_videos(self, frames: Tensor) -> VideoFeatures:
        """Features (B, 1, ...) of (B, 1, T, 3, S, S) uint8 frames."""
        return encode_clips(
            self.model, frames, normalize=self._normalize, grad_cache_size=self._grad_cache_size
        )

    def _encode_texts(self, ids: Tensor, mask: Tensor) -> TextFeatures:
        """Of (B, L) ids and their mask."""
        return grad_cached(self.model.encode_text, ids, mask, size=self._grad_cache_size)

    def _gathered(self, batch: PretrainBatch, *, engine: Engine) -> GatheredBatch:
        """What the pairs of a batch are compared gathered."""
        return gather_batch_metadata(
            batch.video_ids,
            num_tokens=batch.text_ids.shape[1],
            temperature=self.model.temperature(),
            engine=engine,
            mask_same_video=self._mask_same_video,
        )
