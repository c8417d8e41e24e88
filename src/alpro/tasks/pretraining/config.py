"""Configs of the two stages of pretraining."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from alpro.configs.downstream import DownstreamVideoOptions
from alpro.configs.experiment import ContrastOptions, ExperimentConfig, MatchingOptions
from alpro.configs.fields import Constraint, option, override_default
from alpro.tasks.pretraining.options import (
    PRETRAINING_LOSSES,
    PRETRAINING_SETS,
    PROMPTER_LOSSES,
    PretrainingDataOptions,
    PretrainingOptions,
    PretrainingVideoOptions,
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
    CHECKS: ClassVar[tuple[Constraint, ...]] = ExperimentConfig.CHECKS + PRETRAINING_SETS

    augmentation: str = option(
        "randaugment",
        "augmentation of training videos and images, the same for all frames of a video; none:"
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
    CHECKS: ClassVar[tuple[Constraint, ...]] = PretrainingConfig.CHECKS + PROMPTER_LOSSES

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
    CHECKS: ClassVar[tuple[Constraint, ...]] = PretrainingConfig.CHECKS + PRETRAINING_LOSSES

    # The losses, whose sum is trained on.
    use_itc: bool = option(False, "train with the contrastive loss (VTC)")
    use_itm: bool = option(False, "train with the matching loss (VTM)")
    use_mlm: bool = option(False, "train with the masked language loss (MLM)")
    use_mpm: bool = option(False, "train with the entity loss (PEM)")
    mlm_probability: float = option(
        0.15, "share of the word pieces that MLM predicts", above=0, maximum=1
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

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:
        """Return sentences about keys without effect, and a threshold that lets guesses pass."""
        notices = super().notices(infers=infers, stored=stored)
        if not self.use_mpm:
            notices += [
                f"{key} has no effect: use_mpm is 0"
                for key in ("teacher_weights_path", "entity_file_path")
                if getattr(self, key) is not None
            ]
        elif self.entity_threshold <= (chance := 1 / self.num_entities):
            notices.append(
                f"entity_threshold {self.entity_threshold:g} is not above chance, 1/num_entities = "
                f"{chance:.3g}: a mere guess of the prompter counts as confident"
            )
        return notices + self.start_notices(matching=self.use_itm)


@dataclass(kw_only=True)
class PostPretrainConfig(PretrainingConfig, DownstreamVideoOptions):
    """Post-pretraining of an image-text model on clips, subtitles and captions of frames."""

    SCRIPT: ClassVar[str] = "src/pretrain/run_pretrain.py"
    TASK: ClassVar[str] = "post_pretraining"
    TOPIC: ClassVar[str] = "Post-pretraining"
    INERT: ClassVar[frozenset[str]] = (PretrainingConfig.INERT - {"random_sample_clips"}) | {
        "inference_n_clips"  # validation sees one clip, as training
    }

    # Frames are squashed, and not augmented.
    resize_size: int = override_default(PretrainingConfig, "resize_size", 224)
    augmentation: str = override_default(PretrainingConfig, "augmentation", "none")
    best_metric: str = option(
        "text2video_r1",
        "validation metric that chooses model_step_best.pt: text2video or video2text, then _r1,"
        " _r5, _r10, _medianR or _meanR; means over the validation sets, or <name>_text2video_r1"
        " ... of one",
    )
