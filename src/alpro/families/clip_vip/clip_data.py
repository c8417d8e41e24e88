"""Clips of post-pretraining: with texts, and their middle frames with captions.

Shapes: ``B`` clips, ``T`` frames, ``S`` side of the square frames in pixels, ``L`` text tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.shared_rows import pack_rows
from alpro.datasets.storage import open_videos
from alpro.datasets.tokenization import Tokenizer, drawn_text, tokenize
from alpro.datasets.video_datasets import TensorBatch, TrainingSample, UnreadableVideo, stack_frames
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.experiment.data import (
    Annotations,
    build_evaluation_set,
    check_missing_videos,
    report_missing,
    without_missing,
)
from alpro.experiment.experiment import DatasetPaths
from alpro.tasks.pretraining.clips import Clip, list_of, read_clips
from alpro.tasks.pretraining.config import PretrainingConfig
from alpro.tasks.pretraining.data import CaptionedSet, PretrainingData
from alpro.tasks.pretraining.options import PretrainingDataset, pretraining_file

logger = logging.getLogger(__name__)

WITH_FRAME = "videoframe"  # value of `vis_format`


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

    def __call__(self, samples: Sequence[TrainingSample[Clip]]) -> ClipBatch:
        """Stack the frames, draw and tokenize the texts, and tokenize the captions."""
        # Split off the middle frames, if there are any.
        frames = stack_frames([one.frames for one in samples])
        frames, middle = frames[:, :, : self.num_frames], frames[:, :, self.num_frames :]
        image = middle[:, :, 0] if middle.shape[2] else torch.zeros_like(frames[:, :, 0])
        # Tokenize texts and captions; a frame without a caption has the mask of no text.
        tokenized = partial(tokenize, self.tokenizer, max_length=self.max_length)
        texts = [drawn_text(one.item.texts, one.key, self.seed) for one in samples]
        text_ids, text_mask = tokenized(texts)
        captions = [sample.item.caption if middle.shape[2] else "" for sample in samples]
        has_caption = torch.tensor([caption != "" for caption in captions], dtype=torch.bool)
        caption_ids, caption_mask = tokenized(captions)
        return ClipBatch(
            frames=frames,
            text_ids=text_ids,
            text_mask=text_mask,
            image=image,
            caption_ids=caption_ids,
            caption_mask=caption_mask * has_caption[:, None],
            has_caption=has_caption,
            video_ids=[sample.item.video_id for sample in samples],
            unreadable=[video for sample in samples for video in sample.unreadable],
        )


class ClipData(PretrainingData):
    """Clips to train on, and sets of retrieval to validate on."""

    def paths(self, key: str) -> list[DatasetPaths]:
        paths = []
        for index, part in enumerate(getattr(self._config, key)):
            named = f"{key}.{index}", part.name, "ann" if part.ann is not None else "txt"
            paths.append(DatasetPaths(*named, list_of(Path(pretraining_file(part))), part.img))
        return paths

    def read(self, key: str) -> list[CaptionedSet]:
        sets = enumerate(getattr(self._config, key))
        return [load_clips(self._config, part, key=f"{key}.{index}") for index, part in sets]

    def collate(self, *, seed: int) -> ClipCollate:  # type: ignore[override]
        """The collate function for clips."""
        config, tokenizer = self._config, self._experiment.tokenizer
        return ClipCollate(
            tokenizer, num_frames=config.num_frm, max_length=config.max_txt_len, seed=seed
        )

    def validation(self) -> list[EvaluationSet[CaptionRow]]:  # type: ignore[override]
        """All validation sets, a text for each clip."""
        return [self._evaluation_set(one) for one in self.read("val_datasets")]

    def _evaluation_set(self, data: CaptionedSet) -> EvaluationSet[CaptionRow]:
        assert data.videos is not None
        texts = (CaptionRow(clip.texts[0], clip.video_id) for clip in data.items)
        rows = pack_rows(texts, CaptionRow)
        clips = Annotations(data.name, data.annotations, rows, data.videos, missing=set())
        config: Any = self._config  # with the keys of evaluation
        engine = self._experiment.engine
        return build_evaluation_set(config, clips, num_clips=1, engine=engine)

    def describe(self, data: EvaluationSet[CaptionRow]) -> str:  # type: ignore[override]
        return f"{data.name} ({data.annotations}): {len(data.rows)} pairs"


def load_clips(config: PretrainingConfig, part: PretrainingDataset, *, key: str) -> CaptionedSet:
    """Read one set, given by its `key` in the config: ``train_datasets.0``.

    Clips without a text or video are left out where that is allowed; those without a caption have
    no pair of a frame and a caption.

    Raises:
        InputError: if texts or videos are missing and that is not allowed.
    """
    if part.img is None:
        raise InputError(f"{key}.img ({part.name}): name the folder, LMDB or shards of its clips")
    # Read the clips, with their captions if these are used.
    txt, with_frame = Path(pretraining_file(part)), part.vis_format == WITH_FRAME
    uses_captions = with_frame or part.vid_txt != "subtitle"
    captions = Path(part.vid_cap_path) if part.vid_cap_path and uses_captions else None
    table = read_clips(txt, captions=captions, source=part.vid_txt)
    path, clips = list_of(txt), table.clips
    # Report what they lack, captions once and for all.
    if table.without_text:
        report_missing(
            table.without_text,
            name=part.name,
            named_in=f"{len(clips) + len(table.without_text)} clips listed in {path}",
            place=f"the texts {txt}",
            are_all=not clips,
            hint=None,
            allowed=config.allow_missing_videos,
        )
    if captions is not None and (lack := table.num_without_caption):
        if lack == len(clips):
            raise InputError(
                f"{key}.vid_cap_path ({part.name}): none of the {lack} clips of {path} has a "
                f"caption in {captions}. Name the captions of these clips, by the same ids."
            )
        logger.warning(
            "%s: %d of %d clips have no caption in %s; they have %s",
            *(part.name, lack, len(clips), captions),
            "no pair of frame and caption" if with_frame else "their subtitle as text",
        )
    # Leave out clips that the storage lacks.
    videos, allowed = open_videos(Path(part.img)), config.allow_missing_videos
    missing = check_missing_videos(path, clips, videos, name=part.name, allowed=allowed)
    return CaptionedSet(
        *(part.name, path, without_missing(clips, missing), 0, "video", videos, None, part.weight),
        middle_frame=with_frame,
    )
