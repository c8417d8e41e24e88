"""Batches of retrieval.

``B``: videos, ``C``: clips of each, ``T``: frames of a clip, ``S``: side of a frame in pixels,
``L``: text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.batches import TensorBatch, UnreadableVideo, stack_frames
from alpro.datasets.tokenization import Tokenizer, drawn_text, tokenize
from alpro.datasets.video_datasets import TrainingSample


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
