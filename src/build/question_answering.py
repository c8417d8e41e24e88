"""What is the question answering task's own: its data, its objective, its evaluation."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from src.build.data import (
    Annotations,
    build_normalize,
    build_training_data,
    build_training_set,
    read_annotations,
    training_rows,
)
from src.build.model import build_question_answering_model, load_weights
from src.build.recipe import Recipe
from src.configs.options import annotation_file
from src.configs.schema import DatasetConfig, QaConfig
from src.datasets.annotations import sha256_of
from src.datasets.question_answering import QaCollate, group_questions, label_questions
from src.datasets.questions import AnswerLabels, QuestionRow, read_answer_labels, read_questions
from src.datasets.tokenization import tokenize
from src.errors import InputError
from src.evaluation.question_answering import QaOutcome, QuestionAnsweringEvaluator
from src.evaluation.report import answers_table, write_answers
from src.evaluation.running import Progress
from src.modeling.question_answering import AlproForQuestionAnswering
from src.tasks.question_answering_task import QuestionAnsweringTask
from src.training.precision import usable_precision
from src.training.trainer import TrainingData, TrainingPlan

MIN_NUM_LABELS = 1500  # size of the original's classifier where fewer answers are known
CLASSIFIER = ("classifier.*",)


class QuestionAnsweringRecipe(Recipe[QaConfig, QuestionRow, AlproForQuestionAnswering]):
    """Video question answering as classification."""

    ROWS = "questions"

    @cached_property
    def labels(self) -> AnswerLabels:
        """The answers that the model can give."""
        return read_answer_labels(Path(self.config.ans2label_path))

    def other_inputs(self) -> Mapping[str, Path]:
        """The answers' labels."""
        return {"ans2label_path": Path(self.config.ans2label_path)}

    def annotation_path(self, part: DatasetConfig) -> Path:
        """The questions of a set."""
        return Path(annotation_file(part, self.config.task))

    def annotations(self, part: DatasetConfig) -> Annotations[QuestionRow]:
        """Read the questions of a set; MSVD's videos are ``.avi``, all others ``.mp4``."""
        return read_annotations(
            self.config,
            part,
            path=self.annotation_path(part),
            read=read_questions,
            extension=".avi" if "msvd" in self.config.task else ".mp4",
        )

    def training_data(self) -> TrainingData:
        """Questions whose answers have labels, in groups of the same video."""
        sets, description = [], []
        for part in self.config.train_datasets:
            found = self.annotations(part)
            rows = training_rows(self.config, found)
            labelled, num_left_out = label_questions(rows, self.labels)
            if not labelled:
                raise InputError(
                    f"{part.name}: none of the {len(rows)} answers in {found.path} is in "
                    f"{self.config.ans2label_path} (ans2label_path); name the file that belongs "
                    "to this set"
                )
            groups = group_questions(labelled, max_group=self.config.max_n_example_per_group)
            num_videos = len({group.video_id for group in groups})
            description.append(
                f"{part.name}: {len(labelled)} questions about {num_videos} videos to train on"
            )
            if num_left_out:
                description.append(
                    f"{part.name}: {num_left_out} of the {len(rows)} questions are left out, their "
                    f"answers are not in {self.config.ans2label_path}"
                )
            sets.append(build_training_set(self.config, groups, videos=found.videos))
        collate = QaCollate(self.tokenizer, max_length=self.config.max_txt_len)
        return build_training_data(
            self.config, sets, collate=collate, description=description, engine=self.engine
        )

    def build_model(self) -> AlproForQuestionAnswering:
        """ALPRO with a classifier of answers."""
        num_labels = max(len(self.labels), MIN_NUM_LABELS)
        return build_question_answering_model(self.resolved, num_labels=num_labels)

    def load_weights(self, model: AlproForQuestionAnswering) -> None:
        """Fill the model; a classifier that is to be trained may be new."""
        training = not self.config.do_inference
        load_weights(
            model,
            self.config,
            new_heads=CLASSIFIER if training else (),
            drop=CLASSIFIER if training and self.config.new_classifier else (),
        )

    def build_evaluator(
        self, model: AlproForQuestionAnswering, *, progress: Progress
    ) -> QuestionAnsweringEvaluator:
        """Answers to questions about videos."""
        config = self.config

        def tokens_of(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
            return tokenize(self.tokenizer, texts, max_length=config.max_txt_len)

        return QuestionAnsweringEvaluator(
            model,
            labels=self.labels,
            tokenize=tokens_of,
            normalize=build_normalize(config, engine=self.engine),
            engine=self.engine,
            precision=usable_precision(config.precision, self.engine.device),
            question_chunk=(
                config.inference_batch_size if config.do_inference else config.val_batch_size
            ),
            clip_aggregation=config.score_agg_func,
            allow_missing_videos=config.allow_missing_videos,
            progress=progress,
        )

    def build_task(
        self,
        model: AlproForQuestionAnswering,
        evaluator: QuestionAnsweringEvaluator,
        *,
        plan: TrainingPlan,  # noqa: ARG002
    ) -> QuestionAnsweringTask:
        """Cross-entropy over the answers."""
        normalize = build_normalize(self.config, engine=self.engine)
        return QuestionAnsweringTask(model, normalize=normalize, evaluator=evaluator)

    def results_suffix(self) -> str:
        """Nothing: there is one way to answer."""
        return ""

    def protocol(self) -> dict[str, Any]:
        """Which answers could be given."""
        path = Path(self.config.ans2label_path)
        return {
            "ans2label": str(path),
            "ans2label_sha256": sha256_of(path),
            "num_answers": len(self.labels),
        }

    def write_results(
        self, folder: Path, outcome: QaOutcome, *, protocol: Mapping[str, Any]
    ) -> str:
        """Accuracies, and the answer to every question."""
        scores = write_answers(folder, outcome, protocol=protocol)
        return f"{scores['counts']['overall'][1]} questions\n{answers_table(scores)}"
