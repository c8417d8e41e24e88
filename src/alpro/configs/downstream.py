"""Config fields of the downstream tasks; those derived from one of `shared_options` extend it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from alpro.configs.experiment import ExperimentConfig
from alpro.configs.fields import Constraint, option, required
from alpro.configs.shared_options import MAX_BATCH, DataOptions, VideoOptions

TABLES = "that ends in .jsonl, .json, .csv, .tsv or .parquet"
_AVI_SETS = ("msvd", "lsmdc")
_NOT_RANDOM = ("uniform", "nlvl_uniform", "start", "middle", "end", "linspace")  # samplings


@dataclass(kw_only=True)
class DownstreamDataset:
    """One entry of `train_datasets`, `val_datasets` or `test_datasets`."""

    name: str = required("name of the dataset", remedy="Any name does.")
    txt: str | dict[str, str] | None = option(
        None, "annotation file (.jsonl, .json, .csv, .tsv, .parquet)", path=True
    )
    img: str = required(
        "folder, LMDB or tar shards of videos, or folder of images or of frames",
        remedy="Name the folder, LMDB or tar shards that hold the videos.",
        path=True,
    )
    ann: str | None = option(None, "annotation file of a pretraining set; not read here", path=True)


def annotation_file(dataset: DownstreamDataset, task: str | None) -> str:
    """Annotation file of a set of retrieval (`task` None) or question answering."""
    path = annotation_in(dataset.txt, task)
    assert path is not None  # checked by the config's constraints
    return path


def extension_of(set_names: str) -> str:
    """Extension that videos are looked for with first: that of the published files."""
    return ".avi" if any(name in set_names for name in _AVI_SETS) else ".mp4"


def annotation_in(txt: str | dict[str, str] | None, task: str | None) -> str | None:
    """Annotation file for a task in a set's `txt`: a path, or a map of tasks to paths."""
    if isinstance(txt, dict):
        return None if task is None else txt.get(task)
    return txt


@dataclass(kw_only=True)
class DownstreamDataOptions(DataOptions):
    """Data sets of a downstream task."""

    train_datasets: list[DownstreamDataset] = option(
        [],
        "training sets; each has name, txt (annotation file) and img (folder, LMDB or tar shards of"
        " videos; or folder of images, or of a folder of frames for each video)",
        needed="training",
        remedy='Add "train_datasets": [{"name": ..., "txt": ..., "img": ...}].',
    )
    val_datasets: list[DownstreamDataset] = option(
        [],
        "validation sets: they choose the best checkpoint",
        needed="training",
        remedy='Add "val_datasets": [{"name": ..., "txt": ..., "img": ...}].',
    )
    test_datasets: list[DownstreamDataset] = option([], "evaluated once, after training, if given")
    max_n_example_per_group: int = option(
        1,
        "texts that share a video of a batch, at most; retrieval takes only 1",
        minimum=1,
        maximum=MAX_BATCH,
    )


@dataclass(kw_only=True)
class DownstreamVideoOptions(VideoOptions):
    """Clip sampling of downstream tasks."""

    test_num_frm: int | None = option(
        None,
        "frames per clip in validation, test and inference (null: num_frm)",
        minimum=1,
        maximum=4096,
    )
    random_sample_clips: bool = option(
        True,
        "each of several clips of a training video is drawn from all of it (0: from an equal part"
        " of its own, as in evaluation)",
    )
    frame_order: str = option(
        "original",
        "evaluation only: shows whether the model uses the order of the frames",
        choices=("original", "reversed", "shuffled"),
    )

    @property
    def num_evaluated_frames(self) -> int:
        """Frames per clip in evaluation."""
        return self.test_num_frm or self.num_frm


@dataclass(kw_only=True)
class InferenceOptions:
    """Evaluation of a trained model; of these keys only `score_agg_func` is the trained run's."""

    TOPIC: ClassVar[str] = "Inference"

    do_inference: bool = option(False, "evaluate the run in output_dir; no training", per_run=True)
    inference_model_step: str = option(
        "best", "which ckpt/model_step_<...>.pt (original: -1)", number_is_text=True, per_run=True
    )
    inference_txt_db: str | None = option(
        None,
        "annotation file",
        needed="inference",
        remedy="Add --inference_txt_db FILE.",
        path=True,
        per_run=True,
    )
    inference_img_db: str | None = option(
        None,
        "folder, LMDB or tar shards of videos, or folder of images or of frames",
        needed="inference",
        remedy="Add --inference_img_db DIR.",
        path=True,
        per_run=True,
    )
    inference_batch_size: int = option(
        64, "texts per batch", minimum=1, maximum=MAX_BATCH, per_run=True
    )
    inference_n_clips: int = option(
        1,
        "clips per video: num_frm frames are read from each of as many equal parts of it",
        minimum=1,
        maximum=1000,
        per_run=True,
    )
    inference_split: str | None = option(
        None, "a name for the set, in messages (null: that of the annotation file)", per_run=True
    )
    score_agg_func: str = option(
        "mean",
        "how the scores of a video's clips become one, in the losses as in evaluation (lse:"
        " log-sum-exp)",
        choices=("mean", "max", "lse"),
    )


DOWNSTREAM: tuple[Constraint, ...] = (
    Constraint(
        ("train_n_clips", "random_sample_clips", "frm_sampling_strategy"),
        lambda clips, random, strategy: clips > 1 and random and strategy in _NOT_RANDOM,
        "all clips of a video would have the same frames",
        "Set random_sample_clips to 0, for clips of equal parts, or frm_sampling_strategy to rand.",
        training_only=True,
    ),
    Constraint(
        ("inference_model_step",),
        lambda step: "/" in step,
        "it is part of the name model_step_<...>.pt in output_dir/ckpt",
        "Give best, last or a number; --e2e_weights_path names any other file.",
    ),
    Constraint(
        ("do_inference", "e2e_weights_path"),
        lambda infers, path: infers and path is None,
        "inference needs a checkpoint",
        "Give --e2e_weights_path FILE, or leave it out and give the output_dir of a run.",
    ),
)


# Test sets of one file name would share a results folder.
def _named_alike(first: Any, second: Any, task: str | None = None) -> bool:
    one, other = annotation_in(first, task), annotation_in(second, task)
    return one is not None and other is not None and PurePath(one).stem == PurePath(other).stem


def distinct_names(*task: str) -> Constraint:
    """Return the rule that no two test sets have annotation files of one name."""
    return Constraint(
        ("test_datasets.*.txt", "test_datasets.*.txt", *task),
        _named_alike,
        "results go to results_<name of the annotation file>, the same folder for both",
        "Give one file another name; a link to it will do.",
        training_only=True,
    )


@dataclass(kw_only=True)
class DownstreamConfig(
    ExperimentConfig, DownstreamDataOptions, DownstreamVideoOptions, InferenceOptions
):
    """Config of any downstream task: finetuning and evaluation on data sets of its own."""

    INERT: ClassVar[frozenset[str]] = ExperimentConfig.INERT | {"model_type", "resize_size"}
    CHECKS: ClassVar[tuple[Constraint, ...]] = ExperimentConfig.CHECKS + DOWNSTREAM

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:
        """Return sentences about keys without effect."""
        notices = super().notices(infers=infers, stored=stored)
        if not infers and len(self.val_datasets) > 1:
            first = self.val_datasets[0].name
            notices.insert(0, f"val_datasets: only the first, {first}, is validated on")
        if not infers and self.val_datasets[0].txt in [one.txt for one in self.test_datasets]:
            notices.append(
                f"val_datasets.0 is the test set {self.val_datasets[0].txt}: the best checkpoint is"
                " chosen by the numbers that are reported, which favours them"
            )
        return notices
