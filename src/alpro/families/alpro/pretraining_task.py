"""Video-language pretraining: VTC + VTM + MLM + PEM, each of which can be left out.

Shapes: B pairs on this rank, M negative pairs, G pairs on all ranks, L text tokens, N patches,
D width, K entities, P patches per side.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alpro.datasets.pretraining import IGNORED, PretrainBatch
from alpro.datasets.transforms.normalize import erase_outside
from alpro.distributed.engine import Engine
from alpro.evaluation.encoding import clip_of
from alpro.evaluation.evaluation_set import Progress
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.losses.matching import Pairs
from alpro.modeling.contracts import TextFeatures, VideoFeatures, concatenated
from alpro.modeling.grad_cache import grad_cached
from alpro.objectives.pair_task import (
    PairTask,
    measure_contrast,
    measure_entities,
    measure_matching,
    mlm_loss_and_accuracy,
)
from alpro.objectives.pairs import (
    NegativePool,
    global_negatives,
    hard_negatives,
    local_negatives,
    match_pairs,
    positives_with,
)
from alpro.objectives.validation import LossWithMetrics, PairSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Which losses are trained with, under the original's names."""

    itc: bool
    itm: bool
    mlm: bool
    mpm: bool

    @property
    def plain_text(self) -> bool:
        """Whether the captions are needed as they are."""
        return self.itc or self.itm or self.mpm


class PretrainingTask(PairTask):
    """ALPRO's pretraining (section 3). The encoders run once per batch, for all losses."""

    model: AlproForPretraining

    def __init__(
        self,
        model: AlproForPretraining,
        *,
        engine: Engine,
        normalize: nn.Module,
        objectives: Objectives,
        itm_start_step: int,
        mask_same_video: bool,
        entity_threshold: float,
        precision: str,
        allow_missing_videos: bool,
        progress: Progress,
        negatives_of_all_ranks: bool = False,
        grad_cache_size: int = 0,
    ) -> None:
        """Assemble the objective.

        Args:
            model: what is trained, with its prompter if PEM is.
            engine: the job, for the gathered contrastive loss.
            normalize: uint8 frames to what the model expects.
            objectives: the losses.
            itm_start_step: first update with VTM; its negatives tell nothing before VTC does.
            mask_same_video: captions of one video are not each other's negatives.
            entity_threshold: probability of its best entity from which on the prompter is believed.
            precision: of validation's forward passes.
            allow_missing_videos: validate without what cannot be read.
            progress: shows validation's batches.
            negatives_of_all_ranks: VTM takes its negatives from all G pairs, not from this rank's.
            grad_cache_size: see :class:`PairTask`.
        """
        super().__init__(
            model,
            engine=engine,
            normalize=normalize,
            mask_same_video=mask_same_video,
            precision=precision,
            allow_missing_videos=allow_missing_videos,
            progress=progress,
            grad_cache_size=grad_cache_size,
        )
        self._pool = global_negatives if negatives_of_all_ranks else local_negatives
        self._objectives = objectives
        self._itm_start_step = itm_start_step
        self._entity_threshold = entity_threshold
        self._matches_now = objectives.itm
        self._has_warned = engine.rank != 0

    def on_update_start(self, step: int) -> None:
        """Switch VTM on when its time has come."""
        self._matches_now = self._objectives.itm and step >= self._itm_start_step

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """``loss``, the sum of the losses that are on; each of them with its accuracy."""
        self.model.clamp_temperature()
        found = self._measure(batch, engine=self._engine, with_matching=self._matches_now)
        values = {
            key: value for name, one in found.items() for key, value in one.values(name).items()
        }
        return {"loss": torch.stack([one.loss for one in found.values()]).sum(), **values}

    def measure_all(
        self, batch: PretrainBatch, *, engine: Engine, generator: torch.Generator
    ) -> Mapping[str, LossWithMetrics]:
        """The losses of B pairs among those of an engine's ranks, VTM whether it is on or not."""
        return self._measure(
            batch, engine=engine, with_matching=self._objectives.itm, generator=generator
        )

    def check_dry_run(self, losses: Mapping[str, float]) -> None:
        """Warn of a prompter that is sure of nothing in the batch."""
        self._warn_of_doubt(losses, where="batch's")

    def evaluate(self, *data: PairSet) -> dict[str, float]:
        """Mean losses and accuracies; negatives are those of the same validation batch."""
        metrics = super().evaluate(*data)
        self._warn_of_doubt(metrics, where="validation")
        return metrics

    def _warn_of_doubt(self, metrics: Mapping[str, float], *, where: str) -> None:
        """Warn once if the prompter teaches nothing."""
        if metrics.get("mpm_confident") != 0.0 or self._has_warned:
            return
        self._has_warned = True
        assert self.model.prompter is not None
        num_entities = len(self.model.prompter.video_prompt_feat)
        logger.warning(
            "mpm_confident is 0: the prompter reaches entity_threshold %g for none of the %s "
            "pairs, so PEM teaches nothing; lower entity_threshold (chance is 1/num_entities = "
            "%.3g), or train the prompter longer",
            *(self._entity_threshold, where, 1 / num_entities),
        )

    def _measure(
        self,
        batch: PretrainBatch,
        *,
        engine: Engine,
        with_matching: bool,
        generator: torch.Generator | None = None,
    ) -> dict[str, LossWithMetrics]:
        """The losses of B pairs among the G pairs of an engine's ranks."""
        model, objectives = self.model, self._objectives
        video = self._encode_videos(batch.frames)
        plain, masked = self._encode_captions(batch)
        fused, fused_masked = self._fuse_whole(plain, masked, video)  # (B, L+1+N, D) each
        gathered = self._gathered(batch, engine=engine)
        found = {}
        if objectives.itc:
            assert plain is not None
            found["itc"] = measure_contrast(video, plain, gathered=gathered)
        if with_matching:
            assert plain is not None
            pool = self._pool(video, plain, gathered=gathered)
            negatives = hard_negatives(pool, generator=generator)
            logits = self._match(pool, fused, negatives)
            found["itm"] = measure_matching(logits, len(batch.video_ids), engine=engine)
        if objectives.mlm:
            assert fused_masked is not None
            assert batch.mlm_labels is not None
            words = model.predict_words(fused_masked, batch.mlm_labels != IGNORED)
            found["mlm"] = mlm_loss_and_accuracy(words, batch.mlm_labels)
        if objectives.mpm:
            assert fused is not None
            found["mpm"] = self._measure_entities(batch, fused)
        return found

    def _encode_captions(
        self, batch: PretrainBatch
    ) -> tuple[TextFeatures | None, TextFeatures | None]:
        """The B captions as they are and with hidden words, in one pass.

        What no loss needs is left out.
        """
        ids = [batch.text_ids] * self._objectives.plain_text
        if self._objectives.mlm:
            assert batch.masked_ids is not None
            ids.append(batch.masked_ids)
        texts = self._encode_texts(torch.cat(ids), torch.cat([batch.text_mask] * len(ids)))
        parts = texts.split(len(batch.text_ids))
        return (
            parts[0] if self._objectives.plain_text else None,
            parts[-1] if self._objectives.mlm else None,
        )

    def _fuse_whole(
        self, plain: TextFeatures | None, masked: TextFeatures | None, video: VideoFeatures
    ) -> tuple[Tensor | None, Tensor | None]:
        """Pairs fused for more than their first position, in one pass: (B, L+1+N, D) each.

        Args:
            plain: the captions as they are; fused if PEM is on.
            masked: the captions with hidden words; fused if there are any.
            video: of the same pairs, one clip each.
        """
        wanted = (plain if self._objectives.mpm else None, masked)
        texts = [text for text in wanted if text is not None]
        if not texts:
            return None, None
        own = torch.arange(len(video.tokens), device=video.tokens.device)

        def fuse(videos: Tensor, *text: Tensor) -> Tensor:
            return self.model.fuse(TextFeatures(*text), clip_of(video.select(videos), 0))

        rows = own.repeat(len(texts))
        fused = grad_cached(fuse, rows, *concatenated(texts), size=self._grad_cache_size)
        parts = list(fused.split(len(own)))
        return (
            parts[0] if self._objectives.mpm else None,
            parts[-1] if self._objectives.mlm else None,
        )

    def _match(self, pool: NegativePool, fused: Tensor | None, negatives: Pairs) -> Tensor:
        """Matching logits (B+M, 2), the B positives first; those that are fused are not again."""
        own = None if fused is None else self.model.itm_head(fused[:, 0])  # (B, 2)
        if own is not None and len(negatives.texts) == 0:
            return own
        pairs = negatives if own is not None else positives_with(negatives, pool=pool)
        logits = match_pairs(self.model, pool, pairs, grad_cache_size=self._grad_cache_size)
        return logits if own is None else torch.cat([own, logits])

    def _measure_entities(self, batch: PretrainBatch, fused: Tensor) -> LossWithMetrics:
        """PEM: what the prompter sees in each region, told from the region's fused tokens."""
        predicted = predict_entity_pairs(
            self.model,
            batch,
            fused,
            normalize=self._normalize,
            grad_cache_size=self._grad_cache_size,
        )
        return measure_entities(
            predicted.logits, predicted.targets, threshold=self._entity_threshold
        )


class EntityPredictions(NamedTuple):
    """What the regions of B pairs show."""

    logits: Tensor  # (B, K), the model's
    targets: Tensor  # (B, K), the prompter's probabilities


def predict_entity_pairs(
    model: AlproForPretraining,
    batch: PretrainBatch,
    fused: Tensor,
    *,
    normalize: Callable[[Tensor], Tensor],
    grad_cache_size: int = 0,
) -> EntityPredictions:
    """Ask the prompter and the model what each region shows.

    Args:
        model: with a prompter.
        batch: pairs with regions.
        fused: (B, L+1+N, D), the batch's plain captions fused with its frames.
        normalize: uint8 frames to what the model expects.
        grad_cache_size: regions that the prompter is asked about at a time, 0 for all at once.
    """
    prompter = model.prompter
    assert prompter is not None
    assert batch.region is not None

    def ask(frames: Tensor, region: Tensor) -> Tensor:
        erased = normalize(erase_outside(frames, region))
        return prompter.entity_probabilities(erased, batch.media, region=region)

    targets = grad_cached(ask, batch.frames[:, 0], batch.region, size=grad_cache_size)
    num_text_tokens = batch.text_ids.shape[1]
    logits = model.predict_entities(fused, num_text_tokens=num_text_tokens, region=batch.region)
    return EntityPredictions(logits, targets)
