"""Captioned videos and images: data sets of pretraining, their mixture, validation pairs."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from alpro.datasets.batch_samplers import MixtureBatchSampler
from alpro.datasets.dataloader import ConcatDataset
from alpro.datasets.decoding import Decoder
from alpro.datasets.images import ImageReader
from alpro.datasets.shared_rows import SharedRows, pack_rows
from alpro.datasets.storage import VideoStorage, open_videos
from alpro.datasets.transforms.augmentation import (
    CentreCrop,
    Pipeline,
    RandomCrop,
    RandomFlip,
    RepeatFrames,
    image_augmentation,
    video_augmentation,
)
from alpro.datasets.video_datasets import FrameAugmentation, FrameSource, TrainingVideos
from alpro.errors import InputError
from alpro.evaluation.encoding import chunks, shard
from alpro.evaluation.evaluation_set import VALIDATION_SEED, VideoSet
from alpro.experiment.data import (
    batch_sampler,
    build_decoder,
    build_loader,
    check_missing_videos,
    frame_reader,
    limit_for_debug,
    report_missing,
    subsample,
    without_missing,
)
from alpro.experiment.experiment import Data, DatasetPaths, Experiment
from alpro.families.registry import load_family
from alpro.file_kinds import Media
from alpro.tasks.pretraining.annotations import CaptionedItem, read_captioned
from alpro.tasks.pretraining.batches import PretrainBatch, PretrainCollate, ValidationPairs
from alpro.tasks.pretraining.config import PretrainingConfig
from alpro.tasks.pretraining.options import PretrainingDataset, media_of, pretraining_file
from alpro.training.objective import TrainingData
from alpro.training.run_directory import RunDirectory, read_stored

logger = logging.getLogger(__name__)

MAX_IMAGES_CHECKED = 100_000  # of a set: each costs a look at the disk, minutes for millions
FLIP_PROBABILITY = 0.5  # of an image left to right, the original's


@dataclass(frozen=True, slots=True)
class CaptionedSet:
    """One set of a config: its items and how their frames are read."""

    name: str
    annotations: Path
    items: SharedRows[Any]
    num_left_out: int
    media: Media
    videos: VideoStorage | None
    """Storage of videos; None for images."""
    image_root: Path | None
    """Folder that image paths are relative to."""
    weight: float
    middle_frame: bool = False
    """Whether the frame in the middle of a video follows those of its clip."""

    def description(self, *, num_used: int) -> str:
        """The number of used captions, as a line of the log."""
        left_out = f" ({self.num_left_out} left out, too long)" if self.num_left_out else ""
        return f"{self.name}: {num_used} captioned {self.media}s{left_out}"


@dataclass(frozen=True, slots=True)
class PairSet(VideoSet):
    """Captioned videos or images, in batches that do not depend on the number of ranks.

    It has an id for each pair.
    """

    own_batches: Sequence[range]
    """Pairs of each of this rank's batches."""
    loader: DataLoader[PretrainBatch]
    """This rank's batches, without pairs that could not be read, which they list."""


class PretrainingData(Data):
    """The data sets of a pretraining experiment."""

    _config: PretrainingConfig

    def __init__(
        self,
        experiment: Experiment[Any],
        *,
        mlm_probability: float | None = None,
        patches: tuple[int, int] | None = None,
    ) -> None:
        """Configure the masks of words and regions; None for those that no loss needs.

        `patches` are the patches per side of a frame, and the pixels of each, for the regions.
        """
        super().__init__(experiment)
        self._mlm_probability = mlm_probability
        self._patches = patches

    def paths(self, key: str) -> list[DatasetPaths]:
        return [
            DatasetPaths(
                f"{key}.{index}",
                part.name,
                "ann" if part.ann is not None else "txt",
                Path(pretraining_file(part)),
                part.img,
                holds_videos=media_of(part) == "video",
            )
            for index, part in enumerate(getattr(self._config, key))
        ]

    def read(self, key: str) -> list[CaptionedSet]:
        """Read the sets that a key of the config lists."""
        config = self._config
        output = RunDirectory(Path(config.output_dir), rank=self._experiment.engine.rank)
        # Looking for images takes minutes: a run that resumes has done it, unless sets changed.
        starts = config.overwrite or config.dry_run or not output.restore_files()
        current = self._experiment.resolved.to_json()[key]
        looks = starts or read_stored(output.args).get(key) != current
        return [
            load_dataset(config, part, key=f"{key}.{index}", looks_for_images=looks)
            for index, part in enumerate(getattr(config, key))
        ]

    def training(self) -> TrainingData:
        """All training sets; each update draws one of them, as in the original."""
        # One sampler per set, and one that draws the set of each update.
        config, engine, sets = self._config, self._experiment.engine, self.read("train_datasets")
        decoder = build_decoder(config)
        dataset = ConcatDataset([_training_set(config, one, decoder=decoder) for one in sets])
        sampler = MixtureBatchSampler(
            [batch_sampler(config, num_examples=len(one), engine=engine) for one in dataset.sets],
            weights=[one.weight for one in sets],
            window=config.gradient_accumulation_steps,
        )
        counted = zip(sets, map(len, dataset.sets), strict=True)
        description = [one.description(num_used=num_used) for one, num_used in counted]
        collate = self.collate(seed=config.seed)
        load = partial(build_loader, config, dataset, collate=collate, engine=engine)
        return TrainingData(sampler, load, num_samples=len(dataset), description=description)

    def validation(self) -> list[PairSet]:
        """All validation sets; metrics are means over the pairs of all."""
        return [self._validation_set(one) for one in self.read("val_datasets")]

    def _validation_set(self, data: CaptionedSet) -> PairSet:
        # Cut batches before sharding: they do not depend on the number of ranks.
        config, engine = self._config, self._experiment.engine
        pairs = validation_pairs(config, data)
        own = shard(chunks(len(pairs), size=config.val_batch_size), engine=engine)
        loader = build_loader(
            config,
            pairs,
            [[(0, index) for index in piece] for piece in own],
            collate=self.collate(seed=VALIDATION_SEED),
            engine=engine,
            num_batches=len(own),
        )
        # All ranks know the ids of all pairs, to report those that are missing.
        video_ids = pack_rows((item.video_id for item in pairs.items), str)
        return PairSet(data.name, data.annotations, video_ids, own_batches=own, loader=loader)

    def describe(self, data: PairSet) -> str:
        return f"{data.name} ({data.annotations}): {len(data.video_ids)} pairs"

    def collate(self, *, seed: int) -> PretrainCollate:
        """The collate function for pairs, with masks where losses need them."""
        return PretrainCollate(
            self._experiment.tokenizer,
            max_length=self._config.max_txt_len,
            mlm_probability=self._mlm_probability,
            patches=self._patches,
            seed=seed,
        )


def load_dataset(
    config: PretrainingConfig, part: PretrainingDataset, *, key: str, looks_for_images: bool = True
) -> CaptionedSet:
    """Read one set, given by its `key` in the config: ``train_datasets.0``.

    Missing videos are left out where that is allowed; missing images stay and count as unreadable.

    Raises:
        InputError: if videos or images are missing and that is not allowed.
    """
    if part.vid_cap_path is not None:
        raise InputError(
            f"{key}.vid_cap_path ({part.name}): captions of frames are for "
            "src/pretrain/run_pretrain.py. Run that, or remove the key."
        )
    path, media = Path(pretraining_file(part)), media_of(part)
    items, num_left_out = read_captioned(path, media)
    # Leave out videos that the storage lacks.
    allowed, videos = config.allow_missing_videos, None
    if media == "video":
        videos = open_videos(Path(str(part.img)))
        missing = check_missing_videos(path, items, videos, name=part.name, allowed=allowed)
        items = without_missing(items, missing)
    # Images are paths below a folder: report those that are missing at once.
    root = Path(part.img) if part.img is not None and media == "image" else None
    if media == "image" and looks_for_images:
        name = f"{key}.img ({part.name})"
        _check_missing_images(path, items, root, name=name, allowed=allowed)
    return CaptionedSet(part.name, path, items, num_left_out, media, videos, root, part.weight)


def _check_missing_images(
    path: Path, items: SharedRows[CaptionedItem], root: Path | None, *, name: str, allowed: bool
) -> None:
    """Report missing images, unless there are so many that looking takes long."""
    image_ids = dict.fromkeys(items.column("video_id"))
    if len(image_ids) > MAX_IMAGES_CHECKED:
        return
    missing = [image for image in image_ids if not os.path.isfile((root or Path()) / image)]
    if missing:
        here = "the current folder, where paths start as img is null"
        report_missing(
            missing,
            name=name,
            named_in=f"{len(image_ids)} images named in {path}",
            place=here if root is None else str(root),
            are_all=len(missing) == len(image_ids),
            hint=None,
            allowed=allowed,
        )


def validation_pairs(
    config: PretrainingConfig, data: CaptionedSet
) -> ValidationPairs[CaptionedItem]:
    """The pairs of a validation set, with their frames."""
    source: FrameSource
    # Validation crops the centre and draws nothing.
    if data.videos is None:
        source, adjust = _image_reader(config, data, random_crop=False), _still(config)
    else:
        reader = frame_reader(
            config, data.videos, frame_size=config.resize_size, decoder=build_decoder(config)
        )
        source = replace(reader.for_evaluation(), middle_frame=data.middle_frame)
        adjust = CentreCrop(config.crop_img_size)
    items = limit_for_debug(config, data.items)
    return ValidationPairs(items, source, adjust=adjust, seed=VALIDATION_SEED)


def _training_set(
    config: PretrainingConfig, data: CaptionedSet, *, decoder: Decoder
) -> TrainingVideos[CaptionedItem]:
    augments = config.augmentation == "randaugment"
    source: FrameSource
    steps: list[FrameAugmentation]
    # Images are cropped as they are read, videos by the first step.
    if data.videos is None:
        source = _image_reader(config, data, random_crop=augments)
        steps = [RandomFlip(FLIP_PROBABILITY), image_augmentation()] * augments
        steps += [_still(config)]
    else:
        reader = frame_reader(config, data.videos, frame_size=config.resize_size, decoder=decoder)
        source = replace(reader, middle_frame=data.middle_frame)
        steps = [RandomCrop(config.crop_img_size)] + [video_augmentation()] * augments
    return TrainingVideos(
        subsample(data.items, share=config.data_ratio, seed=config.seed),
        source,
        seed=config.seed,
        augment=Pipeline(tuple(steps)),
    )


def _still(config: PretrainingConfig) -> FrameAugmentation:
    return RepeatFrames(config.num_frm if config.repeat_images else 1)


def _image_reader(
    config: PretrainingConfig, data: CaptionedSet, *, random_crop: bool
) -> ImageReader:
    preprocessing = load_family(config.family).image_preprocessing(config)
    return ImageReader(data.image_root, preprocessing, random_crop=random_crop)
