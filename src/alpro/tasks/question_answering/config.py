"""Config of video question answering."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from alpro.configs.downstream import TABLES, DownstreamConfig, annotation_in, distinct_names
from alpro.configs.fields import Constraint, option, override_default, required
from alpro.configs.shared_options import VideoOptions
from alpro.errors import listed


def _no_questions(txt: Any, task: str) -> str:
    if txt is None:
        return "question answering reads its questions from one file per set"
    return f"the map has no entry {task}, only {listed(list(txt))}" if txt else "the map is empty"


RULES: tuple[Constraint, ...] = (
    Constraint(
        ("*_datasets.*.txt", "task"),
        lambda txt, task: annotation_in(txt, task) is None,
        _no_questions,
        f"Give txt the path of a file {TABLES}, or a map of tasks to paths with an entry for this"
        " task.",
        training_only=True,
    ),
    distinct_names("task"),
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
    CHECKS: ClassVar[tuple[Constraint, ...]] = DownstreamConfig.CHECKS + RULES

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

    def notices(self, *, infers: bool, stored: Collection[str]) -> list[str]:
        notices = super().notices(infers=infers, stored=stored)
        if self.new_classifier and infers and "new_classifier" not in stored:
            notices.append("new_classifier has no effect: inference trains no classifier")
        if self.new_classifier and not infers and self.e2e_weights_path is None:
            notices.append("new_classifier has no effect: e2e_weights_path is not given")
        return notices
