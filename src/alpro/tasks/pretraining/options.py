"""Config fields of pretraining; those derived from one of `shared_options` extend it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from alpro.configs.fields import Constraint, option, required
from alpro.configs.shared_options import MAX_SIDE, DataOptions, VideoOptions
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
    vid_cap_path: str | None = option(
        None, "captions of the frame in the middle of each clip: a list or an LMDB", path=True
    )
    vid_txt: str = option(
        "subtitle",
        "text of a clip, where captions are given",
        choices=("subtitle", "caption", "caption_subtitle_concat", "caption_subtitle_random"),
    )
    vis_format: str = option(
        "video",
        "videoframe: train on pairs of middle frames and their captions, too",
        choices=("video", "frame", "videoframe"),
    )
    weight: float = option(
        1.0,
        "how often a training batch is of this set, relative to the other sets",
        above=0,
        maximum=10**9,
    )


def pretraining_file(dataset: PretrainingDataset) -> str:
    """Annotation file of a set."""
    path = dataset.ann or dataset.txt
    assert path is not None  # checked by the config's constraints
    return path


def media_of(dataset: PretrainingDataset) -> Media:
    """Media of a set."""
    return infer_media(dataset.media, dataset.ann or dataset.txt)


def infer_media(media: str, annotation_file: str | None) -> Media:
    """Return the media of a set; "auto" follows from the ending of the annotation file."""
    if media == "auto":
        of_images = PurePath(annotation_file or "").suffix.lower() == ".json"
        return "image" if of_images else "video"
    return "image" if media == "image" else "video"


@dataclass(kw_only=True)
class PretrainingDataOptions(DataOptions):
    """Data sets of pretraining."""

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
    """Frames of videos and images."""

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
    """Options of both the prompter and the pretrained model."""

    TOPIC: ClassVar[str] = "Prompter and pretraining"

    model_type: str = option("pretrain", "the original's key; only pretrain", choices=("pretrain",))
    num_entities: int = option(
        1000,
        "entities that the prompter distinguishes: the first lines of the list",
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


_LOSSES = ("use_itc", "use_itm", "use_mlm", "use_mpm")


def _folder_is_missing(img: Any, ann: Any, txt: Any, media: str) -> bool:
    file = ann or txt  # a set without one is reported by itself
    return img is None and file is not None and infer_media(media, file) == "video"


PRETRAINING_SETS: tuple[Constraint, ...] = (
    Constraint(
        ("*_datasets.*.ann", "*_datasets.*.txt"),
        lambda ann, txt: ann is None and txt is None,
        "pretraining reads its captions from one file per set",
        "Give ann the path of a .csv, .tsv, .jsonl, .json, .parquet or .pkl table (videos) or of a"
        " .json list (images).",
    ),
    Constraint(
        ("*_datasets.*.ann", "*_datasets.*.txt"),
        lambda ann, txt: None not in (ann, txt) and ann != txt,
        "pretraining reads its captions from one file per set",
        "Set txt to null, or make two sets.",
    ),
    Constraint(
        tuple(f"*_datasets.*.{part}" for part in ("img", "ann", "txt", "media")),
        _folder_is_missing,
        "this is a set of videos, which are looked for in a folder",
        "Give img the folder; if these are images, set media to image.",
    ),
    Constraint(
        ("*_datasets.*.vid_cap_path", "*_datasets.*.vis_format", "*_datasets.*.vid_txt"),
        lambda captions, media, text: (
            captions is None and (media == "videoframe" or text != "subtitle")
        ),
        "this set is trained on with captions of its frames",
        "Give vid_cap_path, or set vis_format to video and vid_txt to subtitle.",
    ),
    Constraint(
        ("val_datasets.*.vis_format",),
        lambda media: media == "videoframe",
        "validation measures clips and their texts alone",
        "Set it to video.",
    ),
    Constraint(
        ("train_n_clips",),
        lambda clips: clips != 1,
        "pretraining reads one clip per video",
        "Set it to 1; num_frm sets the frames of the clip.",
    ),
    Constraint(
        ("val_datasets.*.weight",),
        lambda weight: weight != 1,
        "every pair of a validation set is read once",
        "Remove it: only training sets have a weight.",
    ),
    Constraint(
        ("crop_img_size", "resize_size"),
        lambda crop, size: crop > size,
        "frames of resize_size are cropped to crop_img_size",
        "Make resize_size at least as large.",
    ),
)

PROMPTER_LOSSES: tuple[Constraint, ...] = (
    Constraint(
        ("use_itc",),
        lambda contrastive: not contrastive,
        "the prompter learns from the contrastive loss alone",
        "Set it to 1.",
    ),
    *(
        Constraint(
            (loss,),
            bool,
            "the prompter learns from the contrastive loss alone",
            "Set it to 0; src/pretrain/run_pretrain_sparse.py trains with this loss.",
        )
        for loss in ("use_itm", "use_mlm", "use_mpm")
    ),
)


def _needs(metric: str, loss: str) -> Constraint:
    return Constraint(
        ("best_metric", loss),
        lambda best, used: best.startswith(metric) and not used,
        "a loss that is not trained with is not measured",
        f"Set {loss} to 1 or best_metric to loss.",
    )


PRETRAINING_LOSSES: tuple[Constraint, ...] = (
    Constraint(
        _LOSSES,
        lambda *used: not any(used),
        "no loss is left to train with",
        "Set one of them to 1.",
    ),
    Constraint(
        ("itm_start_ratio", "use_itc", "use_mlm", "use_mpm"),
        lambda start, *others: start > 0 and not any(others),
        "before the matching loss sets in there would be no loss",
        "Set another loss to 1 or itm_start_ratio to 0.",
    ),
    Constraint(
        ("use_mpm", "entity_file_path"),
        lambda used, path: used and path is None,
        "the entity loss classifies into the entities of a list",
        "Name one, as alpro extract-entities makes it, or set use_mpm to 0.",
    ),
    Constraint(
        ("use_mpm", "teacher_weights_path", "e2e_weights_path"),
        lambda used, teacher, whole: used and teacher is None and whole is None,
        "the entity loss needs a trained prompter as teacher",
        "Give teacher_weights_path the checkpoint of a prompter, e2e_weights_path that of a"
        " pretrained model (which holds its prompter), or set use_mpm to 0.",
    ),
    # A metric for the best checkpoint must be one of the losses trained with.
    *(_needs(metric, f"use_{metric}") for metric in ("itc", "itm", "mlm", "mpm")),
    *(_needs(metric, "use_itc") for metric in ("i2t", "t2i")),
)
