"""Video-language pretraining: VTC + VTM + MLM + PEM, each of which can be left out.

Shapes: B pairs on this rank, M negative pairs, G pairs on all ranks, L text tokens, N patches,
D width, K entities, P patches per side.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alpro.datasets.transforms.normalize import erase_outside
from alpro.distributed.engine import Engine
from alpro.evaluation.encoding import clip_of
from alpro.evaluation.evaluation_set import Progress
from alpro.families.alpro.pretraining_model import AlproForPretraining
from alpro.losses import Pairs
from alpro.modeling.contracts import TextFeatures, VideoFeatures, concatenated
from alpro.modeling.grad_cache import grad_cached
from alpro.tasks.pairs import (
    NegativePool,
    global_negatives,
    hard_negatives,
    local_negatives,
    match_pairs,
    positives_with,
)
from alpro.tasks.pretraining.batches import IGNORED, PretrainBatch
from alpro.tasks.pretraining.data import PairSet
from alpro.tasks.pretraining.objective import (
    LossWithMetrics,
    PairObjective,
    measure_contrast,
    measure_entities,
    measure_matching,
    mlm_loss_and_accuracy,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Switches of the losses, under the original's names."""

    itc: bool
    itm: bool
    mlm: bool
    mpm: bool

    @property
    def plain_text(self) -> bool:
        """Whether captions without masks are needed."""
        return self.itc or self.itm or self.mpm


class PretrainingObjective(PairObjective):
    """ALPRO's pretraining (section 3). The encoders run once per batch, for all losses."""

    model: AlproForPretraining

    def __init__(
        self,
        model: AlproForPretraining,
        *,
        engine: Engine,
        normalize: nn.Module,
        objectives: Objectives,
        itm_start_step: int,  # first update with VTM; hard negatives need a warmed-up VTC
        mask_same_video: bool,
        entity_threshold: float,  # least probability of a confident prompter's best entity
        precision: str,
        allow_missing_videos: bool,
        progress: Progress,
        negatives_of_all_ranks: bool = False,  # VTM draws from all G pairs, not this rank's
        grad_cache_size: int = 0,
    ) -> None:
        """Assemble the objective; see :class:`PairObjective` for the other arguments."""
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
        # VTM may be off until its first update; rank 0 alone warns.
        self._pool = global_negatives if negatives_of_all_ranks else local_negatives
        self._objectives = objectives
        self._itm_start_step = itm_start_step
        self._entity_threshold = entity_threshold
        self._matches_now = objectives.itm
        self._has_warned = engine.rank != 0

    def on_update_start(self, step: int) -> None:
        """Switch VTM on from its first update."""
        self._matches_now = self._objectives.itm and step >= self._itm_start_step

    def forward(self, batch: PretrainBatch) -> dict[str, Tensor]:
        """``loss``, the sum of the losses that are on; each of them with its accuracy."""
        self.model.clamp_temperature()
        losses = self._measure(batch, engine=self._engine, with_matching=self._matches_now)
        values = {"loss": torch.stack([one.loss for one in losses.values()]).sum()}
        for name, one in losses.items():
            values |= one.values(name)
        return values

    def measure_all(
        self, batch: PretrainBatch, *, engine: Engine, generator: torch.Generator
    ) -> Mapping[str, LossWithMetrics]:
        """All losses of B pairs, VTM before its first update too."""
        return self._measure(
            batch, engine=engine, with_matching=self._objectives.itm, generator=generator
        )

    def check_dry_run(self, losses: Mapping[str, float]) -> None:
        """Warn of a prompter that is not confident of any pair in the batch."""
        self._warn_of_doubt(losses, where="batch's")

    def evaluate(self, *data: PairSet) -> dict[str, float]:
        """Mean losses and accuracies; negatives are those of the same validation batch."""
        metrics = super().evaluate(*data)
        self._warn_of_doubt(metrics, where="validation")
        return metrics

    def _warn_of_doubt(self, metrics: Mapping[str, float], *, where: str) -> None:
        """Warn once if the prompter is confident of no pair."""
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
        """Losses of B pairs, with the G pairs of an engine's ranks as negatives."""
        model, objectives = self.model, self._objectives
        # Run the encoders once, for all losses.
        video = self._encode_videos(batch.frames)
        plain, masked = self._encode_captions(batch)
        fused, fused_masked = self._fuse_whole(plain, masked, video)  # (B, L+1+N, D) each
        # VTC and VTM compare pairs, with those of other ranks too.
        gathered = self._gathered(batch, engine=engine)
        losses = {}
        if objectives.itc:
            assert plain is not None
            losses["itc"] = measure_contrast(video, plain, gathered=gathered)
        if with_matching:
            assert plain is not None
            pool = self._pool(video, plain, gathered=gathered)
            negatives = hard_negatives(pool, generator=generator)
            logits = self._match(pool, fused, negatives)
            losses["itm"] = measure_matching(logits, len(batch.video_ids), engine=engine)
        # MLM and PEM predict words and regions of the pair itself.
        if objectives.mlm:
            assert fused_masked is not None
            assert batch.mlm_labels is not None
            words = model.predict_words(fused_masked, batch.mlm_labels != IGNORED)
            losses["mlm"] = mlm_loss_and_accuracy(words, batch.mlm_labels)
        if objectives.mpm:
            assert fused is not None
            losses["mpm"] = self._measure_entities(batch, fused)
        return losses

    def _encode_captions(
        self, batch: PretrainBatch
    ) -> tuple[TextFeatures | None, TextFeatures | None]:
        """The B captions, plain and with masked words, in one pass; None if no loss needs them."""
        # Concatenate both kinds of captions for one forward pass.
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
        """Pairs fused for all positions, in one pass: (B, L+1+N, D) each.

        Plain captions are fused for PEM, captions with masked words for MLM; `video` has one clip
        of each.
        """
        wanted = (plain if self._objectives.mpm else None, masked)
        texts = [text for text in wanted if text is not None]
        if not texts:
            return None, None
        # Both kinds of captions share the videos: row i of each belongs to video i.
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
        """Matching logits (B+M, 2), the B positives first; fused positives are reused."""
        # PEM has fused the positives already: only negatives are left to fuse.
        own = None if fused is None else self.model.itm_head(fused[:, 0])  # (B, 2)
        if own is not None and len(negatives.texts) == 0:
            return own
        pairs = negatives if own is not None else positives_with(negatives, pool=pool)
        logits = match_pairs(self.model, pool, pairs, grad_cache_size=self._grad_cache_size)
        return logits if own is None else torch.cat([own, logits])

    def _measure_entities(self, batch: PretrainBatch, fused: Tensor) -> LossWithMetrics:
        """PEM: predict the prompter's entities of each region from its fused tokens."""
        normalize, size = self._normalize, self._grad_cache_size
        logits, targets = predict_entity_pairs(
            self.model, batch, fused, normalize=normalize, grad_cache_size=size
        )
        return measure_entities(logits, targets, threshold=self._entity_threshold)


def predict_entity_pairs(
    model: AlproForPretraining,
    batch: PretrainBatch,
    fused: Tensor,
    *,
    normalize: Callable[[Tensor], Tensor],
    grad_cache_size: int = 0,
) -> tuple[Tensor, Tensor]:
    """Predict the entities in B regions: the model's logits, the prompter's probabilities, (B, K).

    `fused` (B, L+1+N, D) are the batch's plain captions fused with its frames; the prompter sees
    `grad_cache_size` regions at a time, 0 for all at once.
    """
    prompter, region = model.prompter, batch.region
    assert prompter is not None
    assert region is not None

    def ask(frames: Tensor, region: Tensor) -> Tensor:
        erased = normalize(erase_outside(frames, region))
        return prompter.entity_probabilities(erased, batch.media, region=region)

    # The teacher sees the region alone, the student the whole pair.
    targets = grad_cached(ask, batch.frames[:, 0], region, size=grad_cache_size)
    num_tokens = batch.text_ids.shape[1]
    logits = model.predict_entities(fused, num_text_tokens=num_tokens, region=region)
    return logits, targets
