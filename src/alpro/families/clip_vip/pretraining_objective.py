"""Post-pretraining of CLIP-ViP (section 3.3): videos, subtitles, middle frames and their captions.

B: samples of this rank, N: those with a caption, G: samples of all ranks, T: frames, S: image side,
L: text tokens, E: width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from statistics import fmean
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from alpro.datasets.annotations import CaptionRow
from alpro.distributed.engine import Engine
from alpro.evaluation.encoding import encode_clips
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.families.clip_vip.loss_specs import LOSS_SPECS
from alpro.families.clip_vip.losses import GlobalFeatures, global_loss
from alpro.modeling.contracts import DualEncoder
from alpro.modeling.grad_cache import grad_cached
from alpro.tasks.retrieval.evaluation import RetrievalEvaluator
from alpro.training.objective import Objective


class OmnisourceBatch(Protocol):
    """Videos with subtitles, and their middle frames with captions."""

    frames: Tensor
    """(B, 1, T, 3, S, S) uint8."""
    text_ids: Tensor
    """(B, L) int64."""
    text_mask: Tensor
    """(B, L) int64, 1 on tokens."""
    image: Tensor | None
    """(B, 1, 3, S, S) uint8, videos of one frame; None, as the next three, for videos alone."""
    caption_ids: Tensor | None
    """(B, L) int64; L may be another one."""
    caption_mask: Tensor | None
    """(B, L) int64, 1 on tokens."""
    has_caption: Tensor | None
    """(B,) bool; frames without a caption count nowhere."""


class PostPretrainingObjective(Objective):
    """One of the losses of CLIP-ViP over the global batch; validation is retrieval."""

    model: Any  # an nn.Module that is a DualEncoder

    def __init__(
        self,
        model: DualEncoder,
        *,
        engine: Engine,
        normalize: nn.Module,  # uint8 frames to the model's input
        evaluator: RetrievalEvaluator,
        loss_name: str,  # key of `LOSS_SPECS`
        loss_parameters: Mapping[str, Any],
        grad_cache_size: int = 0,  # items per forward pass of training, 0 for all at once
    ) -> None:
        super().__init__()
        self.model = model
        self._engine = engine
        self._normalize = normalize
        self._evaluator = evaluator
        self._needed = LOSS_SPECS[loss_name].features
        self._loss = global_loss(loss_name, loss_parameters)
        self._grad_cache_size = grad_cache_size

    def forward(self, batch: OmnisourceBatch) -> dict[str, Tensor]:
        """``loss`` of the samples of all ranks, the same on every rank."""
        self.model.clamp_temperature()
        # What the loss does not need is not encoded.
        video = self._encode_videos(batch.frames)
        text = self._encode_texts(batch.text_ids, batch.text_mask)
        captioned = torch.zeros(0, dtype=torch.long, device=video.device)
        if batch.has_caption is not None:
            captioned = batch.has_caption.nonzero().squeeze(1)  # (N,)
        # Without captions, empty rows take part in the gather and in its backward pass.
        caption, image = text[:0], video[:0]
        if len(captioned) and "captions" in self._needed:
            assert batch.caption_ids is not None
            assert batch.caption_mask is not None
            caption = self._encode_texts(
                batch.caption_ids[captioned], batch.caption_mask[captioned]
            )
        if len(captioned) and "images" in self._needed:
            assert batch.image is not None
            image = self._encode_videos(batch.image[captioned].unsqueeze(1))
        encoded = {"videos": video, "subtitles": text, "captions": caption, "images": image}
        needed = {name: encoded[name] for name in self._needed}
        features = self._gathered(needed, captioned)
        return {"loss": self._loss(features, self.model.temperature())}

    def _gathered(self, features: Mapping[str, Tensor], captioned: Tensor) -> GlobalFeatures:
        """Features of all ranks, from this rank's (B, E) and (N, E)."""
        # Gradients of the gathers are summed over the ranks and those of weights are averaged: as
        # the ranks' losses are equal, this gives the gradients of one process with all samples.
        parts = self._engine.gather_objects((len(features["videos"]), captioned.tolist()))
        num_samples = [num for num, _ in parts]
        num_captions = [len(own) for _, own in parts]
        rows = [
            start + row
            for start, (_, own) in zip(accumulate(num_samples, initial=0), parts, strict=False)
            for row in own
        ]
        counts = {name: num_samples for name in ("videos", "subtitles")}
        gathered = {
            name: self._engine.all_gather(own, counts=counts.get(name, num_captions))
            for name, own in features.items()
        }
        device = captioned.device
        return GlobalFeatures(
            **gathered, captioned=torch.tensor(rows, dtype=torch.long, device=device)
        )

    def _encode_videos(self, frames: Tensor) -> Tensor:
        """(B, 1, T, 3, S, S) uint8 frames to (B, E)."""
        size = self._grad_cache_size
        video = encode_clips(self.model, frames, normalize=self._normalize, grad_cache_size=size)
        return video.embedding.squeeze(1)

    def _encode_texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and mask to (B, E)."""
        return grad_cached(self.model.encode_text, ids, mask, size=self._grad_cache_size).embedding

    def evaluate(self, *data: EvaluationSet[CaptionRow]) -> dict[str, float]:
        """Retrieval metrics of each set as ``<set>_<metric>``, and their means over the sets."""
        metrics = {one.name: self._evaluator.run(one).flat_metrics() for one in data}
        of_sets = {f"{set}_{key}": x for set, xs in metrics.items() for key, x in xs.items()}
        first, *_ = metrics.values()
        means = {key: fmean(of_set[key] for of_set in metrics.values()) for key in first}
        return {**of_sets, **means}
