"""Datasets and batches of video-text retrieval.

Shapes: ``B`` batch, ``T`` frames, ``S`` side of the square frames in pixels, ``L`` text tokens.
Everything random is a function of (seed, epoch, index), so that neither the number of workers nor
an interruption changes a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.datasets.annotations import CaptionRow
from src.datasets.decoding import Decoder, VideoReadError
from src.datasets.sampling import evaluation_sampling, frame_indices
from src.datasets.storage import VideoFolder
from src.datasets.tokenization import Tokenizer, tokenize
from src.datasets.transforms import reorder_frames
from src.datasets.unreadable import UnreadableVideo
from src.errors import InputError

_SHUFFLE_STREAM = 1
"""Tells the generator that shuffles frames from the one that samples them."""


@dataclass(frozen=True, slots=True)
class RetrievalSample:
    """One caption with the frames of its video, and the videos that were replaced by it."""

    frames: np.ndarray  # (T, 3, S, S) uint8
    caption: str
    video_id: str
    unreadable: tuple[UnreadableVideo, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluationVideo:
    """The frames of the video at one position, or the reason why there are none."""

    position: int
    video_id: str
    frames: np.ndarray | None  # (T, 3, S, S) uint8
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FrameReader:
    """How a set reads frames of its videos."""

    videos: VideoFolder
    decoder: Decoder
    num_frames: int
    sampling: str
    frame_size: int

    def read(self, video_id: str, *, rng: np.random.Generator | None) -> np.ndarray:
        """Read (T, 3, S, S) uint8 frames of a video.

        Raises:
            VideoReadError: the video is missing or unreadable.
        """
        path = self.videos.find(video_id)
        if path is None:
            raise VideoReadError(f"no file for it in {self.videos.root}")
        select = partial(self._select, rng=rng)
        return self.decoder.read(path, select, height=self.frame_size, width=self.frame_size)

    def _select(self, num_video_frames: int, *, rng: np.random.Generator | None) -> np.ndarray:
        return frame_indices(
            self.sampling, num_video_frames=num_video_frames, num_frames=self.num_frames, rng=rng
        )


class RetrievalTrainingSet(Dataset[RetrievalSample]):
    """Caption-video pairs, indexed by ``(epoch, index)``.

    A pair whose video cannot be read is replaced by another one, drawn by (seed, epoch, index); the
    sample says which videos were given up on.
    """

    def __init__(
        self,
        rows: Sequence[CaptionRow],
        videos: VideoFolder,
        *,
        decoder: Decoder,
        num_frames: int,
        sampling: str,
        frame_size: int,
        seed: int,
        max_attempts: int = 5,
    ) -> None:
        self.rows = rows
        self.reader = FrameReader(videos, decoder, num_frames, sampling, frame_size)
        self.seed = seed
        self.max_attempts = max_attempts

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: tuple[int, int]) -> RetrievalSample:
        """Read the sample; InputError where ``max_attempts`` different draws are all unreadable."""
        epoch, index = key
        unreadable: list[UnreadableVideo] = []
        for attempt in range(self.max_attempts):
            rng = np.random.default_rng([self.seed, epoch, index, attempt])
            row = self.rows[index if attempt == 0 else int(rng.integers(len(self.rows)))]
            try:
                frames = self.reader.read(row.video_id, rng=rng)
            except VideoReadError as error:
                unreadable.append(UnreadableVideo(row.video_id, str(error)))
            else:
                return RetrievalSample(frames, row.caption, row.video_id, tuple(unreadable))
        reasons = "; ".join(f"{video.video_id}: {video.reason}" for video in unreadable)
        raise InputError(
            f"{self.reader.videos.root}: {self.max_attempts} videos drawn one after the other "
            f"cannot be read ({reasons}); check the folder"
        )


class EvaluationVideos(Dataset[EvaluationVideo]):
    """Each video once, by position; a file that cannot be read is reported, never replaced."""

    def __init__(
        self,
        video_ids: Sequence[str],
        videos: VideoFolder,
        *,
        decoder: Decoder,
        num_frames: int,
        sampling: str,
        frame_size: int,
        frame_order: str = "original",
        seed: int,
    ) -> None:
        self.video_ids = video_ids
        self.reader = FrameReader(
            videos, decoder, num_frames, evaluation_sampling(sampling), frame_size
        )
        self.frame_order = frame_order
        self.seed = seed

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, position: int) -> EvaluationVideo:
        video_id = self.video_ids[position]
        centred = self.reader.sampling == "segment"
        rng = None if centred else np.random.default_rng([self.seed, position])
        try:
            frames = self.reader.read(video_id, rng=rng)
        except VideoReadError as error:
            return EvaluationVideo(position, video_id, None, str(error))
        shuffler = np.random.default_rng([self.seed, position, _SHUFFLE_STREAM])
        frames = reorder_frames(frames, self.frame_order, shuffler)
        return EvaluationVideo(position, video_id, frames)


@dataclass
class RetrievalBatch:
    """Caption-video pairs; row ``i`` of every tensor belongs to ``video_ids[i]``."""

    frames: Tensor  # (B, T, 3, S, S) uint8
    text_ids: Tensor  # (B, L) int64
    text_mask: Tensor  # (B, L) int64, 1 on tokens
    video_ids: list[str]
    unreadable: list[UnreadableVideo]

    def to(self, device: torch.device | str) -> RetrievalBatch:
        """Copy the tensors to a device, without waiting where they are pinned."""
        return RetrievalBatch(
            frames=self.frames.to(device, non_blocking=True),
            text_ids=self.text_ids.to(device, non_blocking=True),
            text_mask=self.text_mask.to(device, non_blocking=True),
            video_ids=self.video_ids,
            unreadable=self.unreadable,
        )

    def pin_memory(self) -> RetrievalBatch:
        """Move the tensors to page-locked memory (called by the loader)."""
        return RetrievalBatch(
            frames=self.frames.pin_memory(),
            text_ids=self.text_ids.pin_memory(),
            text_mask=self.text_mask.pin_memory(),
            video_ids=self.video_ids,
            unreadable=self.unreadable,
        )


@dataclass
class VideoBatch:
    """Videos to encode; ``B`` is smaller than the chunk by as many as were unreadable, even 0."""

    frames: Tensor | None  # (B, T, 3, S, S) uint8; None where no video of the chunk was readable
    positions: list[int]
    unreadable: list[UnreadableVideo]

    def to(self, device: torch.device | str) -> VideoBatch:
        """Copy the frames to a device, without waiting where they are pinned."""
        frames = None if self.frames is None else self.frames.to(device, non_blocking=True)
        return VideoBatch(frames, self.positions, self.unreadable)

    def pin_memory(self) -> VideoBatch:
        """Move the frames to page-locked memory (called by the loader)."""
        frames = None if self.frames is None else self.frames.pin_memory()
        return VideoBatch(frames, self.positions, self.unreadable)


@dataclass(frozen=True)
class RetrievalCollate:
    """Make a batch of training samples; a class, so that spawned workers can receive it."""

    tokenizer: Tokenizer
    max_length: int

    def __call__(self, samples: Sequence[RetrievalSample]) -> RetrievalBatch:
        """Stack the frames and tokenize the captions."""
        captions = [sample.caption for sample in samples]
        ids, mask = tokenize(self.tokenizer, captions, max_length=self.max_length)
        return RetrievalBatch(
            frames=torch.from_numpy(np.stack([sample.frames for sample in samples])),
            text_ids=ids,
            text_mask=mask,
            video_ids=[sample.video_id for sample in samples],
            unreadable=[video for sample in samples for video in sample.unreadable],
        )


def collate_videos(videos: Sequence[EvaluationVideo]) -> VideoBatch:
    """Gather the readable videos of a chunk, and list the others."""
    read = [(video, video.frames) for video in videos if video.frames is not None]
    return VideoBatch(
        frames=torch.from_numpy(np.stack([frames for _, frames in read])) if read else None,
        positions=[video.position for video, _ in read],
        unreadable=[
            UnreadableVideo(video.video_id, video.error or "no frames")
            for video in videos
            if video.frames is None
        ],
    )
