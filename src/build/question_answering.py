"""What is the question answering task's own: its data, its objective, its evaluation."""

import logging
from collections.abc import Mapping
from fnmatch import filter as names_like
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from src.build.data import Annotations
from src.build.model import build_question_answering_model
from src.build.recipe import Recipe, TrainingItems
from src.configs.options import annotation_file
from src.configs.schema import DatasetConfig, QaConfig
from src.datasets.annotations import sha256_of
from src.datasets.question_answering import QaCollate, group_questions, label_questions
from src.datasets.questions import AnswerLabels, QuestionRow, read_answer_labels, read_questions
from src.errors import InputError
from src.evaluation.answers import RESERVED_TYPES, QaOutcome
from src.evaluation.question_answering import QuestionAnsweringEvaluator
from src.evaluation.report import answers_table, write_answers
from src.evaluation.running import Progress
from src.evaluation.sets import EvaluationSet
from src.modeling.question_answering import (
    CLASSIFIER_NAMES,
    CLASSIFIER_OUTPUT,
    AlproForQuestionAnswering,
)
from src.modeling.weight_names import StateDict
from src.tasks.question_answering_task import QuestionAnsweringTask
from src.training.output import stored_arguments
from src.training.trainer import TrainingData, TrainingPlan

logger = logging.getLogger(__name__)

MIN_NUM_LABELS = 1500  # size of the original's classifier where fewer answers are known


class QuestionAnsweringRecipe(Recipe[QaConfig, QuestionRow, AlproForQuestionAnswering]):
    """Video question answering as classification."""

    ROWS = "questions"
    MAY_BE_MISSING = (CLASSIFIER_NAMES,)

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

    def read_rows(self, path: Path) -> list[QuestionRow]:
        """Read questions."""
        return read_questions(path)

    def data_name(self) -> str:
        """The task's name."""
        return self.config.task

    def training_items(
        self, found: Annotations[QuestionRow], rows: list[QuestionRow]
    ) -> TrainingItems:
        """Questions whose answers have labels, in groups of the same video."""
        labelled, num_left_out = label_questions(rows, self.labels)
        if not labelled:
            raise InputError(
                f"{found.name}: none of the {len(rows)} answers in {found.path} is in "
                f"{self.config.ans2label_path} (ans2label_path); name the file that belongs "
                "to this set"
            )
        if num_left_out:
            self._warn(
                f"{found.name}: {num_left_out} of the {len(rows)} questions are left out of the "
                f"training, their answers are not in {self.config.ans2label_path}"
            )
        groups = group_questions(labelled, max_group=self.config.max_n_example_per_group)
        return TrainingItems(groups, len(labelled), num_left_out)

    def derived(self, data: TrainingData) -> dict[str, Any]:
        """How many questions have no label."""
        return {"num_left_out_questions": data.num_left_out}

    def build_collate(self) -> QaCollate:
        """Makes batches of videos with their questions."""
        return QaCollate(self.tokenizer, max_length=self.config.max_txt_len)

    def validation_set(self) -> EvaluationSet[QuestionRow]:
        """The set that a training run is validated on; it has the metric to choose by.

        Raises:
            InputError: if that is the loss, and no answer has a label.
        """
        data = super().validation_set()
        if self.config.best_metric == "loss" and self._num_unknown(data) == len(data.rows):
            raise InputError(
                f"best_metric: {data.name} has no loss, none of the {len(data.rows)} answers in "
                f"{data.annotations} is in {self.config.ans2label_path} (ans2label_path). Name "
                "the file that belongs to this set, or set best_metric to overall_acc."
            )
        return data

    def evaluation_set(
        self, part: DatasetConfig, *, num_clips: int = 1
    ) -> EvaluationSet[QuestionRow]:
        """A validation or test set; says how many of its questions cannot be answered.

        Raises:
            InputError: if the accuracy of an answer type would go by the name of another metric.
        """
        data = super().evaluation_set(part, num_clips=num_clips)
        taken = sorted({row.answer_type for row in data.rows} & set(RESERVED_TYPES))
        if taken:
            raise InputError(
                f"{data.annotations}: answer_type cannot be {' or '.join(map(repr, taken))}, "
                f"which would be mistaken for the {taken[0]}_acc of all questions; name the type "
                "otherwise"
            )
        if num_unknown := self._num_unknown(data):
            self._warn(
                f"{data.name}: {num_unknown} of {len(data.rows)} answers are not in "
                f"{self.config.ans2label_path}; they count as wrong"
            )
        return data

    def _num_unknown(self, data: EvaluationSet[QuestionRow]) -> int:
        return sum(self.labels.label_of(row.answer) is None for row in data.rows)

    def build_model(self) -> AlproForQuestionAnswering:
        """ALPRO with a classifier of answers."""
        num_labels = max(len(self.labels), MIN_NUM_LABELS)
        return build_question_answering_model(self.resolved, num_labels=num_labels)

    def prepare_checkpoint(
        self, model: AlproForQuestionAnswering, state: StateDict
    ) -> StateDict:
        """The checkpoint, without its classifier if a new one is asked for.

        Raises:
            InputError: if its classifier is of another size, or is not there for inference.
        """
        config, path = self.config, self.config.e2e_weights_path
        classifier = names_like(state, CLASSIFIER_NAMES)
        if not classifier and config.do_inference:
            raise InputError(
                f"{path}: this checkpoint has no classifier of answers. Name one that was "
                "finetuned for question answering."
            )
        if not classifier:
            return state
        if config.new_classifier and not config.do_inference:
            logger.info("%s: its classifier is left out, a new one is trained", path)
            return {name: value for name, value in state.items() if name not in classifier}
        self._check_size(state.get(CLASSIFIER_OUTPUT), model.get_parameter(CLASSIFIER_OUTPUT))
        if not config.do_inference:
            logger.info("%s: its classifier is taken over; new_classifier 1 trains a new one", path)
        self._compare_labels(Path(str(path)))
        return state

    def _check_size(self, there: Tensor | None, here: Tensor) -> None:
        """Refuse a classifier that differs in the number of its outputs, and only in that."""
        if there is None or there.shape[1:] != here.shape[1:] or len(there) == len(here):
            return
        config = self.config
        anew = "" if config.do_inference else "; or set new_classifier to 1, to train a new one"
        raise InputError(
            f"{config.e2e_weights_path}: its classifier has {len(there)} outputs, this model's "
            f"{len(here)}, because there are {len(self.labels)} answers in {config.ans2label_path} "
            f"(at least {MIN_NUM_LABELS} outputs). Give as ans2label_path the file that it was "
            f"trained with{anew}."
        )

    def _compare_labels(self, checkpoint: Path) -> None:
        """Warn where a classifier was trained with another map of answers, as far as is known."""
        stored = stored_arguments(checkpoint)
        before = str(Path(str(stored.get("ans2label_path"))))
        hashes = stored.get("annotations_sha256")
        known = hashes.get(before) if isinstance(hashes, dict) else None
        now = Path(self.config.ans2label_path)
        if known is not None and known != sha256_of(now):
            self._warn(
                f"ans2label_path: {now} is not the map that {checkpoint} was trained with "
                f"({before}, whose SHA-256 was another one); its labels may mean other answers"
            )

    def _warn(self, message: str) -> None:
        """Warn, once for all processes."""
        if self.engine.rank == 0:
            logger.warning(message)

    def build_evaluator(
        self, model: AlproForQuestionAnswering, *, progress: Progress
    ) -> QuestionAnsweringEvaluator:
        """Answers to questions about videos."""
        config = self.config
        chunk = config.inference_batch_size if config.do_inference else config.val_batch_size
        return QuestionAnsweringEvaluator(
            model,
            labels=self.labels,
            question_chunk=chunk,
            progress=progress,
            **self.evaluator_arguments(),
        )

    def build_task(
        self,
        model: AlproForQuestionAnswering,
        evaluator: QuestionAnsweringEvaluator,
        *,
        plan: TrainingPlan,  # noqa: ARG002
    ) -> QuestionAnsweringTask:
        """Cross-entropy over the answers."""
        return QuestionAnsweringTask(
            model, engine=self.engine, normalize=self.normalize, evaluator=evaluator
        )

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
