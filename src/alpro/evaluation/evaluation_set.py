"""Evaluation sets of annotated videos, their unreadable videos, and what evaluates them."""

import logging
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader

from alpro.datasets.video_datasets import HasVideoId, UnreadableVideo, VideoBatch
from alpro.distributed.engine import Engine
from alpro.errors import InputError
from alpro.evaluation.encoding import Tokenize
from alpro.modeling.contracts import Encoders

logger = logging.getLogger(__name__)

VALIDATION_SEED = 0  # of random draws in validation, the same in every run
Row = TypeVar("Row", bound=HasVideoId, covariant=True)


@dataclass(frozen=True, slots=True)
class VideoSet:
    """A set of videos or images, as messages name it."""

    name: str
    annotations: Path
    video_ids: Sequence[str]
    """All of its videos."""


@dataclass(frozen=True, slots=True)
class EvaluationSet(VideoSet, Generic[Row]):
    """Captions or questions, and the V distinct videos they are about, by first appearance."""

    folder: Path
    """Folder of the videos."""
    rows: Sequence[Row]
    """Captions or questions; a row's number is its id."""
    video_chunks: Sequence[range]
    """Positions of the videos that are encoded together, all ranks' chunks in order."""
    loader: DataLoader[VideoBatch]
    """This rank's chunks of the videos."""

    def rows_by_position(self) -> list[list[int]]:
        """(V,) the rows of each video, in order."""
        # Videos are in order of first appearance, rows in order.
        rows_of: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(self.rows):
            rows_of[row.video_id].append(number)
        return [rows_of[video_id] for video_id in self.video_ids]


def check_unreadable(
    data: VideoSet, unreadable: Sequence[UnreadableVideo], *, allowed: bool
) -> None:
    """Log the unreadable videos of a set, those of all ranks together.

    Raises:
        InputError: if there are any and that is not allowed.
    """
    if not unreadable:
        return
    names = "\n".join(f"  {video.video_id}: {video.reason}" for video in unreadable)
    if not allowed:
        raise InputError(
            f"{data.name}: {len(unreadable)} of {len(data.video_ids)} videos or images named "
            f"in {data.annotations} cannot be read:\n{names}\n"
            "Repair them, or set allow_missing_videos to 1 to evaluate without them."
        )
    message = "%s: evaluated without %d unreadable videos or images:\n%s"
    logger.warning(message, data.name, len(unreadable), names)


def readable_rows(
    data: EvaluationSet[HasVideoId], unreadable: Sequence[UnreadableVideo]
) -> list[int]:
    """Numbers of the rows whose video could be read, in order.

    Raises:
        InputError: if there are none.
    """
    lost = {video.video_id for video in unreadable}
    rows = [number for number, row in enumerate(data.rows) if row.video_id not in lost]
    if not rows:
        raise InputError(f"{data.name}: none of the {len(data.video_ids)} videos can be read.")
    return rows


Progress = Callable[[Iterable[Any], str, str], Iterator[Any]]  # items, description, unit


def silent_progress(items: Iterable[Any], *_: str) -> Iterator[Any]:
    """The progress display that shows nothing."""
    return iter(items)


def with_heartbeat(progress: Progress, *, engine: Engine) -> Progress:
    """A progress display that signals each item to the watchdog as well."""

    def shown(items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
        for item in progress(items, description, unit):
            engine.heartbeat()
            yield item

    return shown


@contextmanager
def evaluation_mode(model: Encoders) -> Iterator[None]:
    """Context in which a model is in evaluation mode; the former mode is restored."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)


@dataclass(eq=False)
class Evaluator(ABC):
    """Evaluates its model on sets of a task, for validation and inference alike."""

    model: Any
    _: KW_ONLY
    tokenize: Tokenize
    normalize: Callable[[Tensor], Tensor]  # uint8 frames to the model's input
    engine: Engine
    precision: str
    clip_aggregation: str = "mean"  # of similarities and logits, see :func:`aggregate_clips`
    allow_missing_videos: bool  # leave out unreadable videos, instead of an error
    progress: Progress = silent_progress

    @abstractmethod
    def run(self, data: Any) -> Any:
        """Evaluate one set; the outcome is the same on every rank."""
