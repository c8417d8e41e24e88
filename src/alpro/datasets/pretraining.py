"""Batches of pretraining: captioned videos or images, with words and regions to predict.

Shapes: ``B`` pairs, ``T`` frames, ``S`` side of the square frames in pixels, ``L`` text tokens,
``P`` patches along each side of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.batches import TensorBatch, stack_frames
from alpro.datasets.captions import CaptionedItem
from alpro.datasets.masking import IGNORED, draw_region, mask_tokens
from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.unreadable import UnreadableVideo
from alpro.datasets.videos import TrainingSample
from alpro.file_kinds import Media

# They tell the generators of a sample from each other, and from those of its frames (`videos`).
_CAPTION_STREAM = 2 << 16
_TOKEN_STREAM = 3 << 16
_REGION_STREAM = 4 << 16


@dataclass
class PretrainBatch(TensorBatch):
    """Caption-video or caption-image pairs; row ``i`` of every tensor is of ``video_ids[i]``.

    ``B`` is 0 where none could be read; the other sizes, and the medium, mean nothing then.
    """

    frames: Tensor  # (B, 1, T, 3, S, S) uint8, one clip of each
    text_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) int64, 1 on tokens
    masked_ids: Tensor | None  # (B, L) int64, some tokens hidden; None without masked words
    mlm_labels: Tensor | None  # (B, L) int64, what they were, IGNORED elsewhere
    region: Tensor | None  # (B, P, P) bool, true inside; None without regions
    media: Media
    video_ids: list[str]
    unreadable: list[UnreadableVideo]


@dataclass(frozen=True)
class PretrainCollate:
    """Make a batch of samples of one medium; a class, so that spawned workers can receive it.

    What is random about a sample is a function of ``seed`` and its key: neither the batch that it
    is in nor what else is drawn of it changes it.
    """

    tokenizer: Tokenizer
    _: KW_ONLY
    max_length: int
    mlm_probability: float | None
    """With which a word is hidden; None: no words are."""
    patches: tuple[int, int] | None
    """P and the side of a patch in pixels; None: no regions."""
    seed: int

    def __call__(
        self, samples: Sequence[TrainingSample[CaptionedItem] | UnreadableVideo]
    ) -> PretrainBatch:
        """Stack the frames, draw and tokenize captions, hide words and draw regions.

        Videos that could not be read are left out of the pairs and listed.
        """
        pairs = [sample for sample in samples if isinstance(sample, TrainingSample)]
        ids, mask = self._tokenized(pairs)
        masked_ids, labels = self._masked(pairs, ids, mask)
        return PretrainBatch(
            frames=_stacked_or_empty([pair.frames for pair in pairs], empty=(0, 1, 0, 3, 0, 0)),
            text_ids=ids,
            text_mask=mask,
            masked_ids=masked_ids,
            mlm_labels=labels,
            region=self._regions(pairs),
            media=_media_of(pairs),
            video_ids=[pair.item.video_id for pair in pairs],
            unreadable=_unreadable(samples),
        )

    def _generator(self, pair: TrainingSample[CaptionedItem], stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *pair.key, stream])

    def _tokenized(self, pairs: Sequence[TrainingSample[CaptionedItem]]) -> tuple[Tensor, Tensor]:
        """One caption of each, as ids and mask (B, L)."""
        if not pairs:
            nothing = torch.zeros(0, 0, dtype=torch.int64)
            return nothing, nothing
        texts = [self.caption_of(pair) for pair in pairs]
        return tokenize(self.tokenizer, texts, max_length=self.max_length)

    def caption_of(self, pair: TrainingSample[CaptionedItem]) -> str:
        """The caption that a batch takes of a sample."""
        captions = pair.item.captions
        if len(captions) == 1:
            return captions[0]
        return captions[self._generator(pair, _CAPTION_STREAM).integers(len(captions))]

    def _masked(
        self, pairs: Sequence[TrainingSample[CaptionedItem]], ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Masked ids and labels (B, L)."""
        if self.mlm_probability is None:
            return None, None
        masked, labels = ids.clone(), torch.full_like(ids, IGNORED)
        special_ids = self.tokenizer.all_special_ids
        for row, pair in enumerate(pairs):
            # The padding takes no part: it depends on the other texts of the batch.
            length = int(mask[row].sum())
            row_masked, row_labels = mask_tokens(
                ids[row, :length].numpy(),
                special_ids=special_ids,
                mask_id=self.tokenizer.mask_token_id,
                vocab_size=len(self.tokenizer),
                probability=self.mlm_probability,
                rng=self._generator(pair, _TOKEN_STREAM),
            )
            masked[row, :length] = torch.from_numpy(row_masked)
            labels[row, :length] = torch.from_numpy(row_labels)
        return masked, labels

    def _regions(self, pairs: Sequence[TrainingSample[CaptionedItem]]) -> Tensor | None:
        if self.patches is None:
            return None
        num_per_side, patch_size = self.patches
        regions = [
            draw_region(
                num_per_side, patch_size=patch_size, rng=self._generator(pair, _REGION_STREAM)
            )
            for pair in pairs
        ]
        return _stacked_or_empty(regions, empty=(0, num_per_side, num_per_side), dtype=torch.bool)


def _stacked_or_empty(
    arrays: Sequence[np.ndarray], *, empty: tuple[int, ...], dtype: torch.dtype = torch.uint8
) -> Tensor:
    """The arrays as one tensor, of the shape ``empty`` and the given type if there are none."""
    return stack_frames(arrays) if arrays else torch.empty(empty, dtype=dtype)


def _media_of(pairs: Sequence[TrainingSample[CaptionedItem]]) -> Media:
    media = {pair.item.media for pair in pairs} or {"video"}
    if len(media) > 1:
        raise ValueError("videos and images in one batch; draw each batch from one set")
    return media.pop()


def _unreadable(
    samples: Sequence[TrainingSample[CaptionedItem] | UnreadableVideo],
) -> list[UnreadableVideo]:
    """The videos that were given up on, in the order of the samples."""
    return [
        video
        for sample in samples
        for video in ((sample,) if isinstance(sample, UnreadableVideo) else sample.unreadable)
    ]
