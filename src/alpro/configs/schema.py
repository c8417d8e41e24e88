"""Config classes of the scripts: topics of options, and the task's own keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from alpro.configs import constraints as checks
from alpro.configs.downstream import DownstreamDataOptions, DownstreamVideoOptions, InferenceOptions
from alpro.configs.fields import option, override_default, required
from alpro.configs.options import (
    MAX_BATCH,
    MAX_COUNT,
    DataOptions,
    ModelOptions,
    OptimizationOptions,
    RunOptions,
    ValidationOptions,
    VideoOptions,
)
from alpro.configs.pretraining import (
    PRETRAINING_LOSSES,
    PRETRAINING_SETS,
    PROMPTER_LOSSES,
    PretrainingDataOptions,
    PretrainingOptions,
    PretrainingVideoOptions,
)

LOCAL, GLOBAL = "local", "global"


@dataclass(kw_only=True)
class ContrastOptions:
    """Contrastive loss (VTC)."""

    TOPIC: ClassVar[str] = "Contrastive loss"

    mask_same_video: bool = option(
        False, "captions of the same video are not negatives (original: they are)"
    )
    grad_cache_size: int = option(
        0,
        "clips, captions or pairs that go through the model at a time, each twice, while VTC"
        " compares the whole batch (0: all at once): less memory, more time",
        minimum=0,
        maximum=MAX_BATCH,
    )


@dataclass(kw_only=True)
class MatchingOptions:
    """Matching loss (VTM): its start, and its negatives."""

    TOPIC: ClassVar[str] = "Matching loss"

    itm_start_ratio: float = option(
        0.0, "share of the updates before the matching loss sets in", minimum=0, maximum=1
    )
    itm_negatives: str = option(
        LOCAL,
        "where the matching loss takes its negatives from: the local batch of a process, or the"
        " global batch of all",
        choices=(LOCAL, GLOBAL),
        former={"own_rank": LOCAL, "all_ranks": GLOBAL},
    )


_RETRIEVAL_METRICS = tuple(
    f"{direction}_{metric}"
    for direction in ("text2video", "video2text", "text2video_vtc", "video2text_vtc")
    for metric in ("r1", "r5", "r10", "medianR", "meanR")
)


@dataclass(kw_only=True)
class ExperimentConfig(
    RunOptions, DataOptions, VideoOptions, ModelOptions, OptimizationOptions, ValidationOptions
):
    """Config of any experiment."""

    SCRIPT: ClassVar[str]
    """Entry script, for the usage line and stored configs."""
    TASK: ClassVar[str]
    """Key of the task in a family's `tasks`."""
    FAMILY: ClassVar[str]
    """Set by `alpro.configs.family.with_family`."""

    INERT: ClassVar[frozenset[str]] = frozenset(
        {  # accepted by the original, never read by it
            *("clip_init", "cnn_lr_decay", "dropout", "fps"),
            *("timesformer_model_cfg", "transformer_lr_mul"),
        }
    )
    DERIVED: ClassVar[frozenset[str]] = frozenset(
        {
            *("n_gpu", "num_train_steps", "save_steps", "valid_steps"),
            *("annotations_sha256", "num_left_out_questions", "script", "architecture"),
            "visual_model",  # stored by earlier versions
        }
    )
    """Stored by a run with its config; accepted in a file, never used."""
    ALIASES: ClassVar[dict[str, str]] = {
        **{"num_workers": "n_workers", "shuffle_block": "shuffle_block_size"}
    }
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = checks.SHARED


@dataclass(kw_only=True)
class DownstreamConfig(
    ExperimentConfig, DownstreamDataOptions, DownstreamVideoOptions, InferenceOptions
):
    """Config of any downstream task: finetuning and evaluation on data sets of its own."""

    INERT: ClassVar[frozenset[str]] = ExperimentConfig.INERT | {"model_type", "resize_size"}
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = checks.SHARED + checks.DOWNSTREAM


@dataclass(kw_only=True)
class RetrievalConfig(DownstreamConfig, ContrastOptions, MatchingOptions):
    """Text-to-video retrieval: finetuning and inference."""

    SCRIPT: ClassVar[str] = "src/tasks/run_video_retrieval.py"
    TASK: ClassVar[str] = "retrieval"
    TOPIC: ClassVar[str] = "Retrieval"
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = DownstreamConfig.CHECKS + checks.RETRIEVAL

    use_itc: bool = option(True, "train with the contrastive loss (VTC)")
    use_itm: bool = option(True, "train with the matching loss (VTM)")
    best_metric: str = option(
        "text2video_r1",
        "validation metric that chooses model_step_best.pt: text2video or video2text, then _vtc"
        " or nothing, then _r1, _r5, _r10, _medianR or _meanR",
        choices=_RETRIEVAL_METRICS,
    )
    retrieval_top_k: int = option(
        0,
        "re-rank only the k best by VTC, both directions (0: score all pairs)",
        minimum=0,
        maximum=MAX_COUNT,
    )
    dual_softmax: bool = option(
        False, "report dual softmax (DSL) as well: transductive, it sees all queries at once"
    )
    eval_retrieval_batch_size: int = option(
        256, "texts per batch when a training run evaluates", minimum=1, maximum=MAX_BATCH
    )


@dataclass(kw_only=True)
class QaConfig(DownstreamConfig):
    """Video question answering: finetuning and inference."""

    SCRIPT: ClassVar[str] = "src/tasks/run_video_qa.py"
    TASK: ClassVar[str] = "question_answering"
    TOPIC: ClassVar[str] = "Question answering"
    INERT: ClassVar[frozenset[str]] = DownstreamConfig.INERT | {
        *("classifier", "cls_hidden_scale", "loss_type"),
        "num_labels",  # follows from ans2label_path; the original overwrites it, too
    }
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = (
        DownstreamConfig.CHECKS + checks.QUESTION_ANSWERING
    )

    augmentation: str = override_default(VideoOptions, "augmentation", "randaugment")
    task: str = option(
        "video_qa",
        "any name; the entry to take where a set's txt is a map; with msvd in it, .avi files are"
        " looked for first",
    )
    ans2label_path: str = required(
        "JSON map of answers to labels 0, 1, 2, ...: the answers of the classifier",
        remedy='Name a file as {"dog": 0, "two": 1}.',
        path=True,
    )
    new_classifier: bool = option(False, "train a fresh classifier, even if the checkpoint has one")
    best_metric: str = option(
        "overall_acc",
        "validation metric that chooses model_step_best.pt",
        choices=("overall_acc", "top5_acc", "loss"),
    )


@dataclass(kw_only=True)
class PretrainingConfig(
    ExperimentConfig,
    PretrainingDataOptions,
    PretrainingVideoOptions,
    PretrainingOptions,
    ContrastOptions,
):
    """Config of both pretraining stages."""

    INERT: ClassVar[frozenset[str]] = ExperimentConfig.INERT | {
        "max_n_example_per_group",  # one caption is drawn for each video of a batch
        "random_sample_clips",
    }
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = checks.SHARED + PRETRAINING_SETS

    augmentation: str = option(
        "randaugment",
        "random changes of training videos and images, the same for all frames of a video; none:"
        " no random crops and flips of images either",
        choices=("none", "randaugment"),
    )


@dataclass(kw_only=True)
class PrompterConfig(PretrainingConfig):
    """Prompter pretraining: the contrastive loss alone makes the teacher of entities."""

    SCRIPT: ClassVar[str] = "src/pretrain/run_pretrain_contrastive_only.py"
    TASK: ClassVar[str] = "prompter"
    TOPIC: ClassVar[str] = "Prompter pretraining"
    INERT: ClassVar[frozenset[str]] = PretrainingConfig.INERT | {
        *("entity_file_path", "teacher_weights_path")  # it becomes the teacher
    }
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = PretrainingConfig.CHECKS + PROMPTER_LOSSES

    # Keys of the original's config, fixed for this stage.
    use_itc: bool = option(True, "train with the contrastive loss (VTC); only 1")
    use_itm: bool = option(False, "matching loss (VTM); only 0")
    use_mlm: bool = option(False, "masked language loss (MLM); only 0")
    use_mpm: bool = option(False, "entity loss (PEM); only 0")
    best_metric: str = option(
        "loss",
        "validation metric that chooses model_step_best.pt: the loss, or the share of videos and"
        " images (i2t) or captions (t2i) that find their counterpart",
        choices=("loss", "i2t_acc", "t2i_acc"),
    )


@dataclass(kw_only=True)
class PretrainConfig(PretrainingConfig, MatchingOptions):
    """Pretraining: contrastive, matching, masked language and entity losses."""

    SCRIPT: ClassVar[str] = "src/pretrain/run_pretrain_sparse.py"
    TASK: ClassVar[str] = "pretraining"
    TOPIC: ClassVar[str] = "Pretraining"
    CHECKS: ClassVar[tuple[checks.Constraint, ...]] = PretrainingConfig.CHECKS + PRETRAINING_LOSSES

    # The losses, whose sum is trained on.
    use_itc: bool = option(False, "train with the contrastive loss (VTC)")
    use_itm: bool = option(False, "train with the matching loss (VTM)")
    use_mlm: bool = option(False, "train with the masked language loss (MLM)")
    use_mpm: bool = option(False, "train with the entity loss (PEM)")
    mlm_probability: float = option(
        0.15, "share of the word pieces that MLM asks for", above=0, maximum=1
    )
    # Teacher and entities of PEM.
    teacher_weights_path: str | None = option(
        None,
        "checkpoint of the prompter, for PEM (.pt); not read if e2e_weights_path holds one",
        path=True,
    )
    entity_file_path: str | None = option(
        None, "list of entities, for PEM: one a line, the most frequent first", path=True
    )
    entity_threshold: float = option(
        0.2,
        "a sample gives no entity loss if its best entity's probability is below this",
        minimum=0,
        maximum=1,
    )
