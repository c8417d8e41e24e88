"""Batches of post-pretraining: clips with texts, and their middle frames with captions.

Shapes: ``B`` clips, ``T`` frames, ``S`` side of the square frames in pixels, ``L`` text tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.batches import TensorBatch, UnreadableVideo, stack_frames
from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.video_datasets import TrainingSample
from alpro.tasks.pretraining.clips import Clip

_TEXT_STREAM = 2 << 16  # seed of the drawn text, distinct from those of the frames


@dataclass
class ClipBatch(TensorBatch):
    """Clips with their texts; row ``i`` of every tensor belongs to ``video_ids[i]``."""

    frames: Tensor  # (B, 1, T, 3, S, S) uint8
    text_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) int64, 1 on tokens
    image: Tensor  # (B, 1, 3, S, S) uint8, the middle frames; zeros in a set without them
    caption_ids: Tensor  # (B, L) int64, L of their own
    caption_mask: Tensor  # (B, L) int64, 0 everywhere for a frame without a caption
    has_caption: Tensor  # (B,) bool, whether the frame and its caption are a pair
    video_ids: list[str]
    unreadable: list[UnreadableVideo]


@dataclass(frozen=True)
class ClipCollate:
    """Make a batch of samples of one set; a class, so that spawned workers can receive it.

    Samples with one frame more than ``num_frames`` end in their middle frame.
    """

    tokenizer: Tokenizer
    _: KW_ONLY
    num_frames: int
    max_length: int
    seed: int  # of the texts that are drawn

    def __call__(self, samples: Sequence[TrainingSample[Clip] | UnreadableVideo]) -> ClipBatch:
        """Stack the frames, draw and tokenize the texts, and tokenize the captions.

        Unreadable videos are left out, and listed in the order of the samples.
        """
        read = [sample for sample in samples if isinstance(sample, TrainingSample)]
        unreadable = [
            video
            for sample in samples
            for video in ((sample,) if isinstance(sample, UnreadableVideo) else sample.unreadable)
        ]
        # Split off the middle frames, if there are any.
        frames = stack_frames([one.frames for one in read]) if read else _NO_FRAMES
        frames, middle = frames[:, :, : self.num_frames], frames[:, :, self.num_frames :]
        image = middle[:, :, 0] if middle.shape[2] else torch.zeros_like(frames[:, :, 0])
        # Tokenize texts and captions; a frame without a caption has the mask of no text.
        text_ids, text_mask = self._tokenized([self._text_of(sample) for sample in read])
        captions = [sample.item.caption if middle.shape[2] else "" for sample in read]
        has_caption = torch.tensor([caption != "" for caption in captions], dtype=torch.bool)
        caption_ids, caption_mask = self._tokenized(captions)
        return ClipBatch(
            frames=frames,
            text_ids=text_ids,
            text_mask=text_mask,
            image=image,
            caption_ids=caption_ids,
            caption_mask=caption_mask * has_caption[:, None],
            has_caption=has_caption,
            video_ids=[sample.item.video_id for sample in read],
            unreadable=unreadable,
        )

    def _text_of(self, sample: TrainingSample[Clip]) -> str:
        texts = sample.item.texts
        if len(texts) == 1:
            return texts[0]
        rng = np.random.default_rng([self.seed, *sample.key, _TEXT_STREAM])
        return texts[int(rng.integers(len(texts)))]

    def _tokenized(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if not texts:
            return torch.zeros(0, 0, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64)
        return tokenize(self.tokenizer, texts, max_length=self.max_length)


_NO_FRAMES = torch.empty(0, 1, 1, 3, 0, 0, dtype=torch.uint8)
