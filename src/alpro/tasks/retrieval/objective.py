"""Text-video retrieval: batches, contrastive and matching loss, and retrieval evaluation.

Shapes: B pairs on this rank, G pairs on all ranks, C clips of each video, T frames of a clip, S
pixels along a side of a frame, L text tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.tokenization import Tokenizer, drawn_text, tokenize
from alpro.datasets.video_datasets import TensorBatch, TrainingSample, UnreadableVideo, stack_frames
from alpro.distributed.engine import Engine, SingleProcess
from alpro.evaluation.encoding import EncodedTexts, EncodedVideos, chunks, encode_clips
from alpro.evaluation.evaluation_set import VALIDATION_SEED, EvaluationSet, evaluation_mode
from alpro.losses import PairLoss
from alpro.modeling.contracts import DualEncoder, Matcher, TextFeatures, VideoFeatures
from alpro.modeling.grad_cache import grad_cached
from alpro.tasks.pairs import (
    contrast_loss,
    contrast_with_all,
    gather_batch_metadata,
    global_contrast_loss,
    global_negatives,
    hard_negatives,
    local_negatives,
    match_loss,
    match_pairs,
    positives_with,
)
from alpro.tasks.retrieval.evaluation import RetrievalEvaluator
from alpro.training.objective import Objective


@dataclass
class RetrievalBatch(TensorBatch):
    """Caption-video pairs; row ``i`` of every tensor belongs to ``video_ids[i]``."""

    frames: Tensor  # (B, C, T, 3, S, S) uint8
    text_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) int64, 1 on tokens
    video_ids: list[str]
    unreadable: list[UnreadableVideo]


@dataclass(frozen=True)
class RetrievalCollate:
    """Make a batch of training samples; a class, so that spawned workers can receive it."""

    tokenizer: Tokenizer
    max_length: int
    seed: int = 0  # of the captions that are drawn

    def __call__(self, samples: Sequence[TrainingSample[CaptionRow]]) -> RetrievalBatch:
        """Stack the frames, and draw and tokenize the captions."""
        captions = [
            drawn_text((sample.item.caption, *sample.item.other_captions), sample.key, self.seed)
            for sample in samples
        ]
        ids, mask = tokenize(self.tokenizer, captions, max_length=self.max_length)
        return RetrievalBatch(
            frames=stack_frames([sample.frames for sample in samples]),
            text_ids=ids,
            text_mask=mask,
            video_ids=[sample.item.video_id for sample in samples],
            unreadable=[video for sample in samples for video in sample.unreadable],
        )


class RetrievalObjective(Objective):
    """VTC + VTM over matching video-text pairs (ALPRO section 3; ALBEF's recipe)."""

    model: Any  # an nn.Module that is a DualEncoder

    def __init__(
        self,
        model: DualEncoder,  # a `Matcher` too where VTM is on
        *,
        engine: Engine,
        normalize: nn.Module,  # uint8 frames to the model's input
        evaluator: RetrievalEvaluator,  # its clip aggregation is used in training too
        use_itc: bool,
        use_itm: bool,
        itm_start_step: int,  # first update with VTM; hard negatives need a warmed-up VTC
        mask_same_video: bool,  # captions of one video are not each other's negatives
        validation_batch: int,  # pairs per batch of the validation loss
        pair_loss: PairLoss | None = None,  # in place of VTC
        negatives_of_all_ranks: bool = False,  # VTM draws from all G pairs, not this rank's
        grad_cache_size: int = 0,  # items per forward pass of training, 0 for all at once
    ) -> None:
        super().__init__()
        assert isinstance(model, Matcher) or not use_itm
        self.model = model
        self._engine = engine
        self._normalize = normalize
        self._evaluator = evaluator
        self._use_itc = use_itc
        self._use_itm = use_itm
        self._itm_start_step = itm_start_step
        self._mask_same_video = mask_same_video
        self._validation_batch = validation_batch
        self._pair_loss = pair_loss
        self._pool = global_negatives if negatives_of_all_ranks else local_negatives
        self._grad_cache_size = grad_cache_size
        self._matches_now = use_itm

    def on_update_start(self, step: int) -> None:
        """Switch VTM on from its first update."""
        self._matches_now = self._use_itm and step >= self._itm_start_step

    def forward(self, batch: RetrievalBatch) -> dict[str, Tensor]:
        """``loss`` and the losses that are on, each a scalar."""
        model, size = self.model, self._grad_cache_size
        model.clamp_temperature()
        video = encode_clips(model, batch.frames, normalize=self._normalize, grad_cache_size=size)
        text = grad_cached(model.encode_text, batch.text_ids, batch.text_mask, size=size)
        return self._losses(
            video, text, batch.video_ids, engine=self._engine, with_matching=self._matches_now
        )

    def _losses(
        self,
        video: VideoFeatures,
        text: TextFeatures,
        video_ids: Sequence[str],
        *,
        engine: Engine,
        with_matching: bool,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Losses of B pairs, with the G pairs of an engine's ranks as negatives."""
        # All ranks must take part, whichever losses are on.
        gathered = gather_batch_metadata(
            video_ids,
            num_tokens=text.mask.shape[1],
            temperature=self.model.temperature(),
            engine=engine,
            mask_same_video=self._mask_same_video,
            clip_aggregation=self._evaluator.clip_aggregation,
        )
        # VTC compares all pairs; VTM matches this rank's and hard negatives of the pool.
        losses = {}
        if self._use_itc:
            if self._pair_loss is None:
                scores = contrast_with_all(video, text, gathered=gathered)
                losses["itc_loss"] = contrast_loss(scores, gathered=gathered)
            else:
                losses["itc_loss"] = global_contrast_loss(
                    video, text, gathered=gathered, loss=self._pair_loss
                )
        if with_matching:
            pool = self._pool(video, text, gathered=gathered)
            pairs = positives_with(hard_negatives(pool, generator=generator), pool=pool)
            logits = match_pairs(
                self.model,
                pool,
                pairs,
                grad_cache_size=self._grad_cache_size,
                clip_aggregation=gathered.clip_aggregation,
            )
            losses["itm_loss"] = match_loss(logits, len(video_ids), engine=engine)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def evaluate(self, data: EvaluationSet[CaptionRow]) -> dict[str, float]:
        """Retrieval metrics of both directions and the mean losses, the same on every rank.

        The losses include VTM, even before its first update.
        """
        videos, texts = self._evaluator.encode(data)
        outcome = self._evaluator.score(data, videos, texts)
        return {**outcome.flat_metrics(), **self._mean_losses(data, videos, texts)}

    @torch.inference_mode()
    def _mean_losses(
        self, data: EvaluationSet[CaptionRow], videos: EncodedVideos, texts: EncodedTexts
    ) -> dict[str, float]:
        """Mean losses over all pairs, in batches that do not depend on the number of ranks."""
        # This rank sums over the chunks of videos that it has encoded.
        rows_of = data.rows_by_position()
        parts = {"num": True, "loss": True, "itc_loss": self._use_itc, "itm_loss": self._use_itm}
        totals = {name: 0.0 for name, used in parts.items() if used}
        with evaluation_mode(self.model):
            for chunk in data.video_chunks:
                mine = [(row, p) for p in chunk if p in videos.own for row in rows_of[p]]
                # Negatives depend on the chunk alone.
                generator = torch.Generator(self._engine.device)
                generator.manual_seed(VALIDATION_SEED + chunk.start)
                for piece in chunks(len(mine), size=self._validation_batch):
                    rows, positions = zip(*(mine[i] for i in piece), strict=True)
                    losses = self._losses(
                        videos.select(positions),
                        texts.select(rows),
                        [data.rows[row].video_id for row in rows],
                        engine=SingleProcess(self._engine.device, scale_loss=False),
                        with_matching=self._use_itm,
                        generator=generator,
                    )
                    totals["num"] += len(rows)
                    for name, loss in losses.items():
                        totals[name] += float(loss) * len(rows)
        # Sum over the ranks, then divide by the number of pairs.
        summed = self._engine.sum(totals)
        num = summed.pop("num")
        return {name: total / num for name, total in summed.items()}
