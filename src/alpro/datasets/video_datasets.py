"""Datasets and batches of videos, for training and for evaluation.

Randomness is a function of (seed, epoch, index): neither the number of workers nor an interruption
changes a sample. Cut-offs, and so replacements, depend on the speed and load of the hardware.

Shapes: ``B`` batch, ``C`` clips of a video, ``T`` frames of a clip, ``S`` side of the square frames
in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from alpro.datasets.decoding import CutOffError, Decoder, VideoReadError
from alpro.datasets.decoding.image_files import check_frames
from alpro.datasets.frame_sampling import CENTRED, evaluation_sampling, select_frames
from alpro.datasets.quarantine import Quarantine
from alpro.datasets.storage import ImageFolder, VideoStorage
from alpro.datasets.transforms.normalize import reorder_frames
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError

# Seeds of frame order and augmentation, distinct from those of sampling, numbered by attempt.
_SHUFFLE_STREAM, _AUGMENTATION_STREAM = 1, 1 << 16

FrameAugmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Change of (T, 3, S, S) uint8 frames; can be sent to worker processes."""


@dataclass(frozen=True, slots=True)
class UnreadableVideo:
    """A video that gave no frames, and why."""

    video_id: str
    reason: str


@dataclass
class TensorBatch:
    """Base of dataclasses whose tensors are moved together; other fields stay as they are."""

    def to(self, device: torch.device | str) -> Self:
        """Copy the tensors to a device, without waiting where they are pinned."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Move the tensors to page-locked memory (called by the loader)."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


def stack_frames(arrays: Sequence[np.ndarray]) -> Tensor:
    """Stack arrays of one shape."""
    return torch.from_numpy(np.stack(arrays))


def change_clips(
    clips: np.ndarray, change: FrameAugmentation, rng: np.random.Generator
) -> np.ndarray:
    """Apply one change to all frames of (C, T, 3, S, S) clips."""
    changed = change(clips.reshape(-1, *clips.shape[2:]), rng)
    return changed.reshape(len(clips), -1, *changed.shape[1:])


class HasVideoId(Protocol):
    """Annotation of one video."""

    @property
    def video_id(self) -> str:
        """The video's id."""


Item = TypeVar("Item", bound=HasVideoId)


class FrameSource(Protocol):
    """Source of the frames of annotated videos or images."""

    @property
    def root(self) -> Path | None:
        """The folder that holds them; None for the current one."""

    def read(self, video_id: str, *, rng: np.random.Generator | None) -> np.ndarray:
        """Read (C, T, 3, S, S) uint8 frames; an image is one clip of one frame.

        Raises:
            VideoReadError: the video is missing or unreadable.
        """


@dataclass(frozen=True, slots=True)
class TrainingSample(Generic[Item]):
    """Frames and annotation of a video, and the unreadable videos that it replaces."""

    frames: np.ndarray  # (C, T, 3, S, S) uint8
    item: Item
    unreadable: tuple[UnreadableVideo, ...] = ()
    key: tuple[int, int] = (0, 0)  # (epoch, index): seeds random changes of the sample


@dataclass(frozen=True, slots=True)
class EvaluationVideo:
    """Frames of the video at a position, or the reason why there are none."""

    position: int
    video_id: str
    frames: np.ndarray | None  # (C, T, 3, S, S) uint8
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FrameReader:
    """Reads the frames of a set's videos from a storage."""

    videos: VideoStorage
    decoder: Decoder
    num_frames: int
    sampling: str
    preprocessing: PixelPreprocessing
    evaluates: bool = False  # `segment` and `interval` then take centres, no random frames
    quarantine: Quarantine | None = None  # videos that are not tried again
    num_clips: int = 1
    independent_clips: bool = False  # each is sampled from the whole video, not from its own part
    sample_rate: int = 0  # of `interval`: frames from one chosen frame to the next
    middle_frame: bool = False  # follows those of the only clip: T is one more than `num_frames`

    def for_evaluation(self, *, num_clips: int = 1) -> FrameReader:
        """The reader with the clips and sampling of evaluation."""
        return replace(
            self,
            sampling=evaluation_sampling(self.sampling),
            evaluates=True,
            num_clips=num_clips,
            independent_clips=False,
        )

    @property
    def root(self) -> Path:
        """The folder or file that holds the videos."""
        return self.videos.root

    def read(self, video_id: str, *, rng: np.random.Generator | None) -> np.ndarray:
        """Read (C, T, 3, S, S) uint8 frames of a video; all clips in one pass over the file.

        Raises:
            VideoReadError: the video is missing, unreadable or in quarantine.
        """
        # Find the file, unless its decoding was cut off before.
        key = f"{self.root}/{video_id}"
        if self.quarantine is not None and (reason := self.quarantine.reason_for(key)):
            raise VideoReadError(f"quarantined: {reason} ({self.quarantine.remedy})")
        video = self.videos.fetch(video_id)
        if video is None:
            raise VideoReadError(f"no file for it in {self.root}")
        # Use as many frames of a folder as its annotation states.
        num_used = None
        if isinstance(self.videos, ImageFolder) and isinstance(video, Path) and video.is_dir():
            num_used = self.videos.frame_counts.get(video_id)
            if num_used is not None:
                check_frames(video, num_used)
        # Choose frames: a partial can be sent to a decoding process, which needs no PyTorch for it.
        select = partial(
            select_frames,
            strategy=self.sampling,
            num_frames=self.num_frames,
            num_clips=self.num_clips,
            independent=self.independent_clips,
            sample_rate=self.sample_rate,
            num_used=num_used,
            with_middle=self.middle_frame,
            rng=None if self.evaluates and self.sampling in CENTRED else rng,
        )
        # Decode; never try a video again that exceeded the limits.
        try:
            frames = self.decoder.read(video, select, preprocessing=self.preprocessing)
        except CutOffError as error:
            if self.quarantine is not None:
                self.quarantine.add(key, str(error))
            raise
        return frames.reshape(self.num_clips, -1, *frames.shape[1:])


class TrainingVideos(Dataset[TrainingSample[Item]]):
    """Annotated videos, indexed by ``(epoch, index)``.

    An item whose video cannot be read is replaced by another one, drawn by (seed, epoch, index);
    the sample lists the videos that it replaces.
    """

    def __init__(
        self,
        items: Sequence[Item],
        reader: FrameSource,
        *,
        seed: int,
        augment: FrameAugmentation | None = None,
        max_attempts: int = 5,
    ) -> None:
        self.items = items
        self.reader = reader
        self.seed = seed
        self.augment = augment
        self.max_attempts = max_attempts

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: tuple[int, int]) -> TrainingSample[Item]:
        """Read the sample; InputError where ``max_attempts`` different draws are all unreadable."""
        # Try the item itself, then random ones in its place.
        epoch, index = key
        unreadable: list[UnreadableVideo] = []
        for attempt in range(self.max_attempts):
            rng = np.random.default_rng([self.seed, epoch, index, attempt])
            item = self.items[index if attempt == 0 else int(rng.integers(len(self.items)))]
            try:
                frames = self.reader.read(item.video_id, rng=rng)
            except VideoReadError as error:
                unreadable.append(UnreadableVideo(item.video_id, str(error)))
            else:
                if self.augment is not None:
                    changes = np.random.default_rng([self.seed, epoch, index, _AUGMENTATION_STREAM])
                    frames = change_clips(frames, self.augment, changes)
                return TrainingSample(frames, item, tuple(unreadable), key)
        reasons = "; ".join(f"{video.video_id}: {video.reason}" for video in unreadable)
        raise InputError(
            f"{self.reader.root or Path()}: {self.max_attempts} videos drawn one after the other "
            f"cannot be read ({reasons}); check the folder"
        )


class EvaluationVideos(Dataset[EvaluationVideo]):
    """Each video once, by position; an unreadable one is reported, never replaced."""

    def __init__(
        self,
        video_ids: Sequence[str],
        reader: FrameReader,
        *,
        num_clips: int = 1,
        frame_order: str = "original",
        seed: int,
    ) -> None:
        """Set up the reader for evaluation; ``frame_order`` as of :func:`reorder_frames`."""
        self.video_ids = video_ids
        self.reader = reader.for_evaluation(num_clips=num_clips)
        self.frame_order = frame_order
        self.seed = seed

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, position: int) -> EvaluationVideo:
        video_id = self.video_ids[position]
        rng = np.random.default_rng([self.seed, position])
        try:
            clips = self.reader.read(video_id, rng=rng)
        except VideoReadError as error:
            return EvaluationVideo(position, video_id, None, str(error))
        shuffler = np.random.default_rng([self.seed, position, _SHUFFLE_STREAM])
        ordered = [reorder_frames(clip, self.frame_order, shuffler) for clip in clips]
        return EvaluationVideo(position, video_id, np.stack(ordered))


@dataclass
class VideoBatch(TensorBatch):
    """Videos to encode; ``B`` is the chunk's size without unreadable ones, possibly 0."""

    frames: Tensor | None  # (B, C, T, 3, S, S) uint8; None where no video was readable
    positions: list[int]
    unreadable: list[UnreadableVideo]


def collate_videos(videos: Sequence[EvaluationVideo]) -> VideoBatch:
    """Stack the readable videos of a chunk, and list the others."""
    read = [(video, video.frames) for video in videos if video.frames is not None]
    return VideoBatch(
        frames=stack_frames([frames for _, frames in read]) if read else None,
        positions=[video.position for video, _ in read],
        unreadable=[
            UnreadableVideo(video.video_id, video.error or "no frames")
            for video in videos
            if video.frames is None
        ],
    )
