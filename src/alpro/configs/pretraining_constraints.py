"""Rules of pretraining that involve more than one key (see `checks`)."""

from __future__ import annotations

from typing import Any

from alpro.configs.constraints import Constraint
from alpro.configs.pretraining import infer_media

_LOSSES = ("use_itc", "use_itm", "use_mlm", "use_mpm")


def _folder_is_missing(img: Any, ann: Any, txt: Any, media: str) -> bool:
    annotation_file = ann or txt
    return (
        img is None
        and annotation_file is not None
        and (infer_media(media, annotation_file) == "video")
    )


SHARED: tuple[Constraint, ...] = (
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

PROMPTER: tuple[Constraint, ...] = (
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
    """A metric of a loss that is not trained with cannot choose."""
    return Constraint(
        ("best_metric", loss),
        lambda best, used: best.startswith(metric) and not used,
        "a loss that is not trained with is not measured",
        f"Set {loss} to 1 or best_metric to loss.",
    )


PRETRAINING: tuple[Constraint, ...] = (
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
        "the entity loss tells apart the entities of a list",
        "Name one, as alpro extract-entities makes it, or set use_mpm to 0.",
    ),
    Constraint(
        ("use_mpm", "teacher_weights_path", "e2e_weights_path"),
        lambda used, teacher, whole: used and teacher is None and whole is None,
        "the entity loss needs a trained prompter as teacher",
        "Give teacher_weights_path the checkpoint of a prompter, e2e_weights_path that of a"
        " pretrained model (which holds its prompter), or set use_mpm to 0.",
    ),
    *(_needs(metric, f"use_{metric}") for metric in ("itc", "itm", "mlm", "mpm")),
    *(_needs(metric, "use_itc") for metric in ("i2t", "t2i")),
)
