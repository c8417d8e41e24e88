"""Training and evaluation sets from a config."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.configs.schema import DatasetConfig, ExperimentConfig
from src.datasets.annotations import CaptionRow, read_captions
from src.datasets.decoding import make_decoder
from src.datasets.loading import EpochBatches, JoinedSets, make_loader
from src.datasets.retrieval import (
    EvaluationVideos,
    RetrievalCollate,
    RetrievalTrainingSet,
    collate_videos,
)
from src.datasets.storage import VideoFolder
from src.datasets.tokenization import Tokenizer
from src.distributed.engine import Engine
from src.errors import InputError
from src.evaluation.encoding import chunks, shard
from src.evaluation.retrieval import RetrievalSet
from src.training.trainer import TrainingData

logger = logging.getLogger(__name__)

DEBUG_ROWS = 10  # captions of an evaluation set that `debug` and `dry_run` keep
NUM_NAMED = 10  # missing videos that a message names


def video_extension(config: ExperimentConfig) -> str:
    """File ending that is looked for first: MSVD's videos are ``.avi``, all others ``.mp4``."""
    names = " ".join(dataset.name for dataset in config.train_datasets)
    return ".avi" if "msvd" in names else ".mp4"


def missing_videos(
    path: Path, rows: Sequence[CaptionRow], videos: VideoFolder, *, name: str, allowed: bool
) -> set[str]:
    """Videos that the captions name and the folder lacks; logged if there are any.

    Raises:
        InputError: if videos are missing and that is not allowed, or if all are.
    """
    missing = videos.missing([row.video_id for row in rows])
    if not missing:
        return set()
    named = ", ".join(missing[:NUM_NAMED]) + (", ..." if len(missing) > NUM_NAMED else "")
    num_videos = len({row.video_id for row in rows})
    if len(missing) == num_videos:
        raise InputError(
            f"{name}: none of the {num_videos} videos named in {path} is in {videos.root}: {named}"
            "\nName the right folder, or add them."
        )
    found = (
        f"{name}: {len(missing)} of the {num_videos} videos named in {path} are not in "
        f"{videos.root}: {named}"
    )
    if not allowed:
        raise InputError(
            f"{found}\nAdd them, or set allow_missing_videos to 1 to go on without them."
        )
    logger.warning(found)
    return set(missing)


def share_of(rows: Sequence[CaptionRow], *, ratio: float, seed: int) -> list[CaptionRow]:
    """The first ``ratio`` of the rows in a random order, as ``data_ratio`` asks for; all for 1."""
    if ratio == 1.0:
        return list(rows)
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[index] for index in order[: max(1, int(ratio * len(rows)))]]


def build_training_data(
    config: ExperimentConfig, *, tokenizer: Tokenizer, engine: Engine
) -> TrainingData:
    """All training sets of a config as one."""
    dataset = JoinedSets([_training_set(config, part) for part in config.train_datasets])
    batches = partial(
        EpochBatches,
        len(dataset),
        batch_size=config.train_batch_size,
        rank=engine.rank,
        size=engine.size,
        seed=config.seed,
        block_size=config.shuffle_block,
    )

    def start(first_batch: int) -> Iterator[Any]:
        loader = make_loader(
            dataset,
            batches=batches(start_batch=first_batch),
            collate=RetrievalCollate(tokenizer, max_length=config.max_txt_len),
            num_workers=config.n_workers,
            pin_memory=config.pin_mem and engine.device.type == "cuda",
        )
        return iter(loader)

    return TrainingData(
        start,
        num_examples=len(dataset),
        batches_per_epoch=batches().batches_per_epoch,
        samples_per_epoch=batches().examples_per_epoch,
    )


def _training_set(config: ExperimentConfig, part: DatasetConfig) -> RetrievalTrainingSet:
    videos = VideoFolder(Path(part.img), extension=video_extension(config))
    path = annotation_path(part)
    rows = read_captions(path)
    missing = missing_videos(
        path, rows, videos, name=part.name, allowed=config.allow_missing_videos
    )
    present = [row for row in rows if row.video_id not in missing]
    return RetrievalTrainingSet(
        share_of(present, ratio=config.data_ratio, seed=config.seed),
        videos,
        decoder=make_decoder(config.video_decoder),
        num_frames=config.num_frm,
        sampling=config.frm_sampling_strategy,
        frame_size=config.crop_img_size,
        seed=config.seed,
    )


def build_evaluation_set(
    config: ExperimentConfig, part: DatasetConfig, *, engine: Engine
) -> RetrievalSet:
    """A validation or test set, its videos dealt out to the ranks in chunks.

    Videos that are missing stay in the set: the evaluation counts them with the unreadable ones.
    """
    videos = VideoFolder(Path(part.img), extension=video_extension(config))
    path = annotation_path(part)
    rows = read_captions(path)
    missing_videos(path, rows, videos, name=part.name, allowed=config.allow_missing_videos)
    if config.debug or config.dry_run:
        rows = rows[:DEBUG_ROWS]
    video_ids = list(dict.fromkeys(row.video_id for row in rows))
    dataset = EvaluationVideos(
        video_ids,
        videos,
        decoder=make_decoder(config.video_decoder),
        num_frames=config.num_frm,
        sampling=config.frm_sampling_strategy,
        frame_size=config.crop_img_size,
        frame_order=config.frame_order,
        seed=config.seed,
    )
    pieces = chunks(len(video_ids), size=config.val_batch_size)
    own = shard(pieces, engine=engine)
    loader = make_loader(
        dataset,
        batches=[list(piece) for piece in own],
        collate=collate_videos,
        num_workers=min(config.n_workers, len(own)),
        pin_memory=config.pin_mem and engine.device.type == "cuda",
    )
    return RetrievalSet(part.name, path, videos.root, rows, video_ids, pieces, loader)


def annotation_path(part: DatasetConfig) -> Path:
    """The annotation file of a retrieval set."""
    assert isinstance(part.txt, str), "a check of the config"
    return Path(part.txt)
