"""Configuration fields of pretraining: its data sets, what it reads, what it teaches.

A class that is named after one of `options` adds fields to that topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar

from alpro.configs.fields import option, required
from alpro.configs.options import MAX_SIDE, DataOptions, VideoOptions
from alpro.file_kinds import Media


@dataclass(kw_only=True)
class PretrainingDataset:
    """One entry of `train_datasets` or `val_datasets`: videos or images, and their captions."""

    name: str = required("name of the dataset", remedy="Any name does.")
    ann: str | None = option(
        None,
        "annotation file: of videos a table (.csv, .tsv, .jsonl, .json, .parquet, .pkl), of images"
        " a .json list",
        path=True,
    )
    txt: str | None = option(None, "another key for the annotation file", path=True)
    img: str | None = option(
        None,
        "folder, LMDB or tar shards of videos; for images the folder that their paths start from"
        " (null: the current one)",
        path=True,
    )
    media: str = option(
        "auto",
        "what img holds; auto: images if the annotation file ends in .json, else videos",
        choices=("auto", "video", "image"),
    )
    weight: float = option(
        1.0,
        "how often a training batch is of this set, relative to the other sets",
        above=0,
        maximum=10**9,
    )


def pretraining_file(dataset: PretrainingDataset) -> str:
    """The annotation file of a set. That there is one was checked when the config was read."""
    path = dataset.ann or dataset.txt
    assert path is not None
    return path


def media_of(dataset: PretrainingDataset) -> Media:
    """Whether a set is of videos or of images."""
    return infer_media(dataset.media, dataset.ann or dataset.txt)


def infer_media(media: str, annotation_file: str | None) -> Media:
    """What a set is of by its `media` and, if that is "auto", the name of its annotation file."""
    if media == "auto":
        of_images = PurePath(annotation_file or "").suffix.lower() == ".json"
        return "image" if of_images else "video"
    return "image" if media == "image" else "video"


@dataclass(kw_only=True)
class PretrainingDataOptions(DataOptions):
    """The sets that are learnt from."""

    TOPIC: ClassVar[str] = DataOptions.TOPIC

    train_datasets: list[PretrainingDataset] = option(
        [],
        "training sets; each has name, ann (annotation file), img (folder), and if need be media"
        " (video or image; auto: image if ann ends in .json) and weight (how often a batch is of"
        " this set, relative to the others; 1)",
        needed="training",
        remedy='Add "train_datasets": [{"name": ..., "ann": ..., "img": ...}].',
    )
    val_datasets: list[PretrainingDataset] = option(
        [],
        "validation sets, given in the same way: they choose the best checkpoint",
        needed="training",
        remedy='Add "val_datasets": [{"name": ..., "ann": ..., "img": ...}].',
    )


@dataclass(kw_only=True)
class PretrainingVideoOptions(VideoOptions):
    """How videos and images become frames."""

    TOPIC: ClassVar[str] = VideoOptions.TOPIC

    resize_size: int = option(
        288,
        "videos are read at this height and width, then cropped to crop_img_size: at random to"
        " train, in the middle to validate",
        minimum=1,
        maximum=MAX_SIDE,
    )
    repeat_images: bool = option(
        True, "an image becomes num_frm equal frames, as in the original (0: one frame)"
    )


@dataclass(kw_only=True)
class PretrainingOptions:
    """What the prompter and the model that it teaches have in common."""

    TOPIC: ClassVar[str] = "Prompter and pretraining"

    model_type: str = option("pretrain", "the original's key; only pretrain", choices=("pretrain",))
    num_entities: int = option(
        1000,
        "entities that the prompter tells apart: so many lines of the list",
        minimum=1,
        maximum=1_000_000,
    )
    best_metric: str = option(
        "loss",
        "validation metric that chooses model_step_best.pt: loss (the sum of those trained with)"
        " or that or the accuracy of one loss (itc: VTC, itm: VTM, mlm: MLM, mpm: PEM)",
        choices=(
            *("loss", "itc_loss", "itm_loss", "mlm_loss", "mpm_loss"),
            *("i2t_acc", "t2i_acc", "itm_acc", "mlm_acc", "mpm_acc"),
        ),
    )
