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

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.tokenization import Tokenizer, drawn_text, tokenize
from alpro.datasets.video_datasets import (
    FrameAugmentation,
    FrameSource,
    Item,
    TensorBatch,
    TrainingSample,
    UnreadableVideo,
    change_clips,
    stack_frames,
)
from alpro.file_kinds import Media
from alpro.tasks.pretraining.annotations import CaptionedItem

IGNORED = -100  # label without a loss term, the default of PyTorch's cross-entropy
# Masking of BERT (Devlin et al., 2019): of the chosen tokens 80 % become [MASK], half of the others
# a random token; the rest stay as they are.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.5
# Limits of a region: share of the frame before the alignment to patches, and height over width.
REGION_AREA, REGION_ASPECT = (0.3, 0.5), (0.3, 1 / 0.3)
# Seeds of masks and region, distinct from those of frames (`videos`) and text (`tokenization`).
_TOKEN_STREAM, _REGION_STREAM = 3 << 16, 4 << 16
_ADJUSTMENT_STREAM = 1  # seed of validation's adjustment, distinct from that of frame sampling


def mask_tokens(
    ids: np.ndarray,
    *,
    special_ids: Collection[int],
    mask_id: int,
    vocab_size: int,
    probability: float = 0.15,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask tokens for masked language modelling; (L,) int64 ids stay as they are.

    Each token but those of ``special_ids`` is chosen with ``probability``. A random replacement is
    any of the ``vocab_size`` tokens, special ones included.

    Returns:
        Masked ids, and labels: the true id of each chosen token, else `IGNORED`; (L,) int64 each.
    """
    # Choose tokens, then the fate of each chosen one.
    chosen = (rng.random(ids.shape) < probability) & ~np.isin(ids, list(special_ids))
    hidden = chosen & (rng.random(ids.shape) < MASK_SHARE)
    replaced = chosen & ~hidden & (rng.random(ids.shape) < RANDOM_SHARE)
    # Random ids are drawn for all tokens, so that later draws do not depend on the choice.
    random_ids = rng.integers(vocab_size, size=ids.shape)
    masked = np.where(hidden, mask_id, np.where(replaced, random_ids, ids))
    return masked, np.where(chosen, ids, IGNORED)


def draw_region(
    num_patches_per_side: int, *, patch_size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the box of patches whose content a model shall name: (P, P) bool, true inside.

    Boxes are drawn in pixels, rounded down to whole patches (at least one high and wide), and
    rejected until one fits into the frame: large and long ones become rarer by that, and portraits
    more frequent than landscapes.
    """
    size = num_patches_per_side * patch_size
    while True:
        # Draw size and corner of a box in pixels, in units of patches from here on.
        area = rng.uniform(*REGION_AREA) * size**2
        aspect = rng.uniform(*REGION_ASPECT)
        width = max(1, int(math.sqrt(area / aspect)) // patch_size)
        height = max(1, int(math.sqrt(area * aspect)) // patch_size)
        left, top = (int(corner) // patch_size for corner in rng.integers(size, size=2))
        # Accept it if it lies inside the frame.
        if left + width <= num_patches_per_side and top + height <= num_patches_per_side:
            region = np.zeros((num_patches_per_side, num_patches_per_side), dtype=bool)
            region[top : top + height, left : left + width] = True
            return region


@dataclass
class PretrainBatch(TensorBatch):
    """Caption-video or caption-image pairs; row ``i`` of every tensor belongs to ``video_ids[i]``.

    If none could be read, ``B`` is 0, and the other sizes and the medium are arbitrary.
    """

    frames: Tensor  # (B, 1, T, 3, S, S) uint8, one clip of each
    text_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) int64, 1 on tokens
    masked_ids: Tensor | None  # (B, L) int64; None without masked language modelling
    mlm_labels: Tensor | None  # (B, L) int64, true ids of masked tokens, IGNORED elsewhere
    region: Tensor | None  # (B, P, P) bool, true inside; None without regions
    media: Media
    video_ids: list[str]
    unreadable: list[UnreadableVideo]


def split_unreadable(
    samples: Sequence[TrainingSample[Item] | UnreadableVideo],
) -> tuple[list[TrainingSample[Item]], list[UnreadableVideo]]:
    """Split samples into those with frames, and all unreadable videos, in their order."""
    pairs = [sample for sample in samples if isinstance(sample, TrainingSample)]
    unreadable = [
        video
        for sample in samples
        for video in ((sample,) if isinstance(sample, UnreadableVideo) else sample.unreadable)
    ]
    return pairs, unreadable


@dataclass(frozen=True)
class PretrainCollate:
    """Make a batch of samples of one medium; a class, so that spawned workers can receive it.

    All random choices for a sample depend on ``seed`` and its key alone, not on its batch.
    """

    tokenizer: Tokenizer
    _: KW_ONLY
    max_length: int
    mlm_probability: float | None  # of masking a token; None: no masked language modelling
    patches: tuple[int, int] | None  # P and the side of a patch in pixels; None: no regions
    seed: int

    def __call__(
        self, samples: Sequence[TrainingSample[CaptionedItem] | UnreadableVideo]
    ) -> PretrainBatch:
        """Stack the frames, draw and tokenize captions, mask tokens and draw regions.

        Unreadable videos are left out of the pairs and listed, in the order of the samples.
        """
        pairs, unreadable = split_unreadable(samples)
        texts = [self.caption_of(pair) for pair in pairs]
        ids, mask = tokenize(self.tokenizer, texts, max_length=self.max_length)
        masked_ids, labels = self._masked(pairs, ids, mask)
        # One medium per batch: videos and images have different numbers of frames.
        media: set[Media] = {pair.item.media for pair in pairs} or {"video"}
        if len(media) > 1:
            raise ValueError("videos and images in one batch; draw each batch from one set")
        return PretrainBatch(
            frames=_stacked_or_empty([pair.frames for pair in pairs], empty=(0, 1, 0, 3, 0, 0)),
            text_ids=ids,
            text_mask=mask,
            masked_ids=masked_ids,
            mlm_labels=labels,
            region=self._regions(pairs),
            media=media.pop(),
            video_ids=[pair.item.video_id for pair in pairs],
            unreadable=unreadable,
        )

    def _generator(self, pair: TrainingSample[CaptionedItem], stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *pair.key, stream])

    def caption_of(self, pair: TrainingSample[CaptionedItem]) -> str:
        """Draw the caption of a sample."""
        return drawn_text(pair.item.captions, pair.key, self.seed)

    def _masked(
        self, pairs: Sequence[TrainingSample[CaptionedItem]], ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        if self.mlm_probability is None:
            return None, None
        masked, labels = ids.clone(), torch.full_like(ids, IGNORED)
        for row, pair in enumerate(pairs):
            # Without padding, whose length depends on the other texts of the batch.
            length = int(mask[row].sum())
            row_masked, row_labels = mask_tokens(
                ids[row, :length].numpy(),
                special_ids=self.tokenizer.all_special_ids,
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
    return stack_frames(arrays) if arrays else torch.empty(empty, dtype=dtype)


@dataclass(eq=False)
class ValidationPairs(Dataset[TrainingSample[Item] | UnreadableVideo], Generic[Item]):
    """Annotated videos, indexed by ``(epoch, index)`` as in training, but equal in all epochs.

    Reading is seeded by (seed, index); an unreadable video is reported, never replaced. ``adjust``
    turns frames into the model's input, by a crop for instance.
    """

    items: Sequence[Item]
    reader: FrameSource
    _: KW_ONLY
    adjust: FrameAugmentation | None = None
    seed: int

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample[Item] | UnreadableVideo:
        """Read a sample; its key has epoch 0, so that its masks are those of all epochs."""
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
