"""Annotated videos or images for validation during pretraining.

Shapes: ``T`` frames, ``S`` side of the square frames in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

import numpy as np
from torch.utils.data import Dataset

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.unreadable import UnreadableVideo
from alpro.datasets.videos import (
    FrameAugmentation,
    FrameSource,
    Item,
    TrainingSample,
    change_clips,
)

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
