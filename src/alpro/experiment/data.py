"""Training and evaluation sets from a config: what all tasks share."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from torch.utils.data import DataLoader

from alpro.configs.downstream import DownstreamConfig, DownstreamDataset
from alpro.configs.experiment import ExperimentConfig
from alpro.datasets.batch_samplers import ResumableBatchSampler
from alpro.datasets.dataloader import make_loader
from alpro.datasets.decoding import Decoder, make_decoder
from alpro.datasets.quarantine import Quarantine
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.datasets.storage import ImageFolder, VideoStorage, hint_of_missing, open_videos
from alpro.datasets.video_datasets import (
    EvaluationVideos,
    FrameReader,
    HasVideoId,
    collate_videos,
)
from alpro.distributed.engine import Engine
from alpro.errors import InputError, listed, shortened
from alpro.evaluation.encoding import chunks, shard
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.families.registry import load_family
from alpro.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

DEBUG_ROWS = 10  # rows or pairs of an evaluation set that `debug` and `dry_run` keep
NUM_NAMED = 10  # missing videos or images that a message names

Row = TypeVar("Row", bound=HasVideoId)
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class Annotations(Generic[Row]):
    """The rows of an annotation file and the storage of their videos."""

    name: str
    path: Path
    rows: SharedRows[Row]
    videos: VideoStorage
    missing: set[str]
    """Videos that the rows name and the storage lacks."""


def find_videos(
    part: DownstreamDataset, rows: SharedRows[Row], *, path: Path, extension: str, allowed: bool
) -> Annotations[Row]:
    """Open the storage of a set, and look for the video of each row, with `extension` first.

    Raises:
        InputError: if videos are missing and that is not `allowed`.
    """
    videos = open_videos(Path(part.img), extension=extension)
    if isinstance(videos, ImageFolder) and rows.has_column("num_frames"):
        videos.frame_counts = stated_frame_counts(path, rows)
    missing = check_missing_videos(path, rows, videos, name=part.name, allowed=allowed)
    return Annotations(part.name, path, rows, videos, missing)


def stated_frame_counts(path: Path, rows: SharedRows[Any]) -> dict[str, int]:
    """Number of frames of each video where rows state it.

    Raises:
        InputError: if two rows of a video differ in it.
    """
    counts: dict[str, int] = {}
    for video_id, count in zip(rows.column("video_id"), rows.column("num_frames"), strict=True):
        if count and counts.setdefault(video_id, count) != count:
            raise InputError(
                f"{path}: num_frame of {shortened(video_id)} is {counts[video_id]} in one row and "
                f"{count} in another. Correct them, or leave the column out."
            )
    return counts


def check_missing_videos(
    path: Path, rows: SharedRows[Any], videos: VideoStorage, *, name: str, allowed: bool
) -> set[str]:
    """Videos that the rows name and the storage lacks; logged if there are any.

    Raises:
        InputError: if videos are missing and that is not allowed, or if all are.
    """
    # Several rows may be about one video.
    video_ids = list(dict.fromkeys(rows.column("video_id")))
    missing = videos.missing(video_ids)
    if not missing:
        return set()
    report_missing(
        missing,
        name=name,
        named_in=f"{len(video_ids)} videos named in {path}",
        place=videos.described,
        are_all=len(missing) == len(video_ids),
        hint=hint_of_missing(missing, videos, rows=rows.column("video_id")),
        allowed=allowed,
    )
    return set(missing)


def report_missing(
    missing: Sequence[str],  # at least one
    *,
    name: str,
    named_in: str,  # number and source: "8 videos named in train.csv"
    place: str,  # where they were looked for
    are_all: bool,
    hint: str | None,  # possible reason
    allowed: bool,
) -> None:
    """Stop, or warn if that is `allowed`, since files of some ids or paths are missing.

    Raises:
        InputError: if that is not allowed, or if all are missing.
    """
    # Name the first few, the folder, and the likely reason.
    few = listed([shortened(name) for name in missing[: NUM_NAMED + 1]], most=NUM_NAMED)
    message = f"{place}: {few}" + (f"\n{hint[0].upper()}{hint[1:]}" if hint else "")
    # Nothing can be done without any file; some may be missing where the config allows it.
    if are_all:
        raise InputError(
            f"{name}: none of the {named_in} is in {message}\nName the right folder, or add them."
        )
    message = f"{name}: {len(missing)} of the {named_in} are not in {message}"
    if not allowed:
        raise InputError(
            f"{message}\nAdd them, or set allow_missing_videos to 1 to go on without them."
        )
    logger.warning(message)


def without_missing(rows: SharedRows[Kept], missing: set[str]) -> SharedRows[Kept]:
    """The rows of all other videos."""
    if not missing:
        return rows
    names = rows.column("video_id")
    return rows.take([number for number, name in enumerate(names) if name not in missing])


def subsample(rows: SharedRows[Kept], *, share: float, seed: int) -> SharedRows[Kept]:
    """The first part of a random order of the rows; for a share of 1 all of them as they are."""
    if share == 1.0:
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.take(order[: max(1, int(share * len(rows)))])


def limit_for_debug(config: ExperimentConfig, rows: SharedRows[Kept]) -> SharedRows[Kept]:
    """The rows of an evaluation set that are evaluated: all, or a few to try it out."""
    return rows[:DEBUG_ROWS] if config.debug or config.dry_run else rows


def batch_sampler(
    config: ExperimentConfig, *, num_examples: int, engine: Engine
) -> ResumableBatchSampler:
    """Order of the batches of one data set on this rank."""
    return ResumableBatchSampler(
        num_examples,
        batch_size=config.train_batch_size,
        rank=engine.rank,
        size=engine.size,
        seed=config.seed,
        block_size=config.shuffle_block_size,
    )


def build_loader(
    config: ExperimentConfig,
    dataset: Any,
    batches: Iterable[list[Any]],
    *,
    collate: Callable[[list[Any]], Any],
    engine: Engine,
    num_batches: int | None = None,
) -> DataLoader[Any]:
    """Loader of batches with the config's workers, at most one for each of `num_batches`."""
    # Workers beyond the number of batches would have nothing to do.
    return make_loader(
        dataset,
        batches=batches,
        collate=collate,
        num_workers=config.n_workers if num_batches is None else min(config.n_workers, num_batches),
        pin_memory=config.pin_mem and engine.device.type == "cuda",
    )


def build_evaluation_set(
    config: DownstreamConfig, annotations: Annotations[Row], *, num_clips: int, engine: Engine
) -> EvaluationSet[Row]:
    """A validation or test set, its videos sharded over the ranks in chunks.

    Missing videos stay in the set: the evaluation counts them with the unreadable ones.
    """
    # Each video is read once, however many rows are about it.
    rows = limit_for_debug(config, annotations.rows)
    video_ids = pack_rows(dict.fromkeys(rows.column("video_id")), str)
    size, decoder = config.crop_img_size, build_decoder(config)
    reader = frame_reader(config, annotations.videos, frame_size=size, decoder=decoder)
    dataset = EvaluationVideos(
        video_ids,
        replace(reader, num_frames=config.num_evaluated_frames),
        num_clips=num_clips,
        frame_order=config.frame_order,
        seed=config.seed,
    )
    # Cut chunks before sharding: their shapes do not depend on the number of ranks.
    pieces = chunks(len(video_ids), size=config.val_batch_size)
    own = shard(pieces, engine=engine)
    loader = build_loader(
        config,
        dataset,
        [list(piece) for piece in own],
        collate=collate_videos,
        engine=engine,
        num_batches=len(own),
    )
    return EvaluationSet(
        name=annotations.name,
        annotations=annotations.path,
        folder=annotations.videos.root,
        rows=rows,
        video_ids=video_ids,
        video_chunks=pieces,
        loader=loader,
    )


def frame_reader(
    config: ExperimentConfig, videos: VideoStorage, *, frame_size: int, decoder: Decoder
) -> FrameReader:
    """Reader of the frames of videos, squares with sides of ``frame_size``."""
    # Videos that have exceeded the limits once are quarantined for later runs.
    preprocessing = load_family(config.family).preprocessing(config)
    output = RunDirectory(Path(config.output_dir), rank=0)
    return FrameReader(
        videos,
        decoder,
        num_frames=config.num_frm,
        sampling=config.frm_sampling_strategy,
        sample_rate=config.sample_rate,
        preprocessing=replace(preprocessing, size=frame_size),
        quarantine=Quarantine(
            None if config.dry_run else output.quarantine,
            seconds=config.decode_timeout,
            megabytes=config.decode_memory,
        ),
    )


def build_decoder(config: ExperimentConfig) -> Decoder:
    """Decoder of videos, within limits; one is enough for all sets of a loader."""
    return make_decoder(
        config.video_decoder, seconds=config.decode_timeout, megabytes=config.decode_memory
    )
