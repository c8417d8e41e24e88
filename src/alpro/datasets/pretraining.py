"""Batches of pretraining: captioned videos or images, with words and regions to predict.

Shapes: ``B`` pairs, ``T`` frames, ``S`` side of the square frames in pixels, ``L`` text tokens,
``P`` patches along each side of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Generic

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from alpro.datasets.batches import TensorBatch, UnreadableVideo, stack_frames
from alpro.datasets.captions import CaptionedItem
from alpro.datasets.decoding import VideoReadError
from alpro.datasets.tokenization import Tokenizer, tokenize
from alpro.datasets.videos import (
    FrameAugmentation,
    FrameSource,
    Item,
    TrainingSample,
    change_clips,
)
from alpro.file_kinds import Media

IGNORED = -100
"""Label of a token that nothing is predicted for, as PyTorch's cross-entropy takes it."""

MASK_SHARE = 0.8  # of the chosen tokens become [MASK] (Devlin et al., 2019)
RANDOM_SHARE = 0.5  # of the other chosen ones become any token; the rest stay as they are

REGION_AREA = (0.3, 0.5)  # least and largest share of the frame, before it is aligned to patches
REGION_ASPECT = (0.3, 1 / 0.3)  # least and largest height over width


def mask_tokens(
    ids: np.ndarray,
    *,
    special_ids: Collection[int],
    mask_id: int,
    vocab_size: int,
    probability: float = 0.15,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Hide tokens of a text for a model to predict.

    Args:
        ids: (L,) int64 tokens; they stay as they are.
        special_ids: Tokens that are never chosen.
        mask_id: The token that hides most of the chosen ones.
        vocab_size: A random token is drawn from this many, special ones included.
        probability: With which each token is chosen.
        rng: What all draws are made from.

    Returns:
        The ids with some hidden, and labels: the true id of each chosen token, else `IGNORED`;
        both (L,) int64.
    """
    chosen = (rng.random(ids.shape) < probability) & ~np.isin(ids, list(special_ids))
    hidden = chosen & (rng.random(ids.shape) < MASK_SHARE)
    replaced = chosen & ~hidden & (rng.random(ids.shape) < RANDOM_SHARE)
    random_ids = rng.integers(vocab_size, size=ids.shape)
    masked = np.where(hidden, mask_id, np.where(replaced, random_ids, ids))
    return masked, np.where(chosen, ids, IGNORED)


def draw_region(
    num_patches_per_side: int, *, patch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the box of patches whose content a model shall name.

    Boxes are drawn in pixels, rounded down to whole patches, and rejected until one fits into the
    frame: large and long ones become rarer by that, and portraits more frequent than landscapes.

    Args:
        num_patches_per_side: P.
        patch_size: Side of a patch in pixels.
        rng: What all draws are made from.

    Returns:
        (P, P) bool, true inside the box, which is a patch high and wide at least.
    """
    size = num_patches_per_side * patch_size
    while True:
        area = rng.uniform(*REGION_AREA) * size**2
        aspect = rng.uniform(*REGION_ASPECT)
        width = max(1, int(math.sqrt(area / aspect)) // patch_size)
        height = max(1, int(math.sqrt(area * aspect)) // patch_size)
        left, top = (int(corner) // patch_size for corner in rng.integers(size, size=2))
        if left + width <= num_patches_per_side and top + height <= num_patches_per_side:
            region = np.zeros((num_patches_per_side, num_patches_per_side), dtype=bool)
            region[top : top + height, left : left + width] = True
            return region


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


_ADJUSTMENT_STREAM = 1
"""Tells the generator that adjusts frames from the one that samples them."""


class ValidationPairs(Dataset[TrainingSample[Item] | UnreadableVideo], Generic[Item]):
    """Annotated videos, indexed by ``(epoch, index)`` as training's, but equal in all epochs.

    What is random in reading an item is drawn by (seed, index); one that cannot be read is
    reported, never replaced.
    """

    def __init__(
        self,
        items: Sequence[Item],
        reader: FrameSource,
        *,
        adjust: FrameAugmentation | None = None,
        seed: int,
    ) -> None:
        """Collect what stays the same from item to item.

        Args:
            items: the annotated videos or images.
            reader: reads their frames.
            adjust: makes of them what the model takes, a crop for instance.
            seed: of what is random.
        """
        self.items = items
        self.reader = reader
        self.adjust = adjust
        self.seed = seed

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample[Item] | UnreadableVideo:
        """Read the sample; its own key has epoch 0, so that masks do not change either."""
        _epoch, index = key
        item = self.items[index]
        try:
            rng = np.random.default_rng([self.seed, index])
            frames = self.reader.read(item.video_id, rng=rng)
        except VideoReadError as error:
            return UnreadableVideo(item.video_id, str(error))
        if self.adjust is not None:
            rng = np.random.default_rng([self.seed, index, _ADJUSTMENT_STREAM])
            frames = change_clips(frames, self.adjust, rng)
        return TrainingSample(frames, item, key=(0, index))
