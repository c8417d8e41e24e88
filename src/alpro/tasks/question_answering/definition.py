"""Question-answering-specific data, objective and evaluation."""

import logging
from collections.abc import Mapping
from fnmatch import filter as names_like
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from alpro.datasets.shared_rows import SharedRows
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.data import Annotations
from alpro.modeling.state_dict_adapter import StateDict
from alpro.tasks.downstream import DownstreamTask, TrainingItems
from alpro.tasks.question_answering.annotations import (
    AnswerLabels,
    QuestionRow,
    describe_unknown,
    read_answer_labels,
    read_questions,
)
from alpro.tasks.question_answering.batches import QaCollate, group_questions, label_questions
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.question_answering.evaluation import (
    RESERVED_TYPES,
    QaOutcome,
    QuestionAnsweringEvaluator,
    answers_table,
    write_answers,
)
from alpro.tasks.question_answering.objective import QuestionAnsweringObjective
from alpro.training.objective import TrainingData, TrainingPlan
from alpro.training.run_directory import run_directory_of

logger = logging.getLogger(__name__)

MIN_NUM_LABELS = 1500  # size of the original's classifier where fewer answers are known


class QuestionAnswering(DownstreamTask[QaConfig, QuestionRow]):
    """Video question answering as classification, with any `AnswerClassifier`."""

    ROW = "question"

    @cached_property
    def labels(self) -> AnswerLabels:
        """The answers that the model can give."""
        path = Path(self.config.ans2label_path)
        self.experiment.sha256_of(path)  # the file may be gone when the results are written
        return read_answer_labels(path)

    def other_inputs(self, *, resumes: bool = False) -> Mapping[str, Path]:
        return {"ans2label_path": Path(self.config.ans2label_path)}

    def entry(self) -> str:
        return self.config.task

    def read_rows(self, path: Path) -> SharedRows[QuestionRow]:
        return read_questions(path)

    def training_items(
        self, annotations: Annotations[QuestionRow], rows: SharedRows[QuestionRow]
    ) -> TrainingItems:
        """Questions whose answers have labels, in groups of the same video."""
        # Leave out questions whose answers the model cannot give; one is needed at least.
        labelled = label_questions(rows, self.labels)
        if not labelled.rows:
            raise InputError(
                f"{annotations.name}: none of the {len(rows)} questions in {annotations.path} has "
                f"an answer that is {self._outside(rows)}. Name the file that belongs to this set."
            )
        if labelled.num_left_out:
            self._warn(
                f"{annotations.name}: {labelled.num_left_out} of the {len(rows)} questions in "
                f"{annotations.path} are left out of the training, their answers are not "
                f"{self._outside(rows)}"
            )
        # One sample is a video with some of its questions.
        groups = group_questions(labelled, max_group=self.config.max_n_example_per_group)
        return TrainingItems(groups, len(labelled.rows), labelled.num_left_out)

    def derived(self, data: TrainingData) -> dict[str, Any]:
        """Number of questions without a label."""
        return {"num_left_out_questions": data.num_left_out}

    def build_collate(self) -> QaCollate:
        return QaCollate(self.experiment.tokenizer, max_length=self.config.max_txt_len)

    def check_evaluated(self, annotations: Annotations[QuestionRow], *, validates: bool) -> None:
        """Warn about questions of a set that cannot be answered.

        Raises:
            InputError: if an answer type has the name of another metric, or the loss is to choose
                the best checkpoint and no answer has a label.
        """
        # Metrics are named after answer types.
        taken = sorted(set(annotations.rows.column("answer_type")) & set(RESERVED_TYPES))
        if taken:
            raise InputError(
                f"{annotations.path}: answer_type cannot be {' or '.join(map(repr, taken))}, "
                f"which would be mistaken for the {taken[0]}_acc of all questions; name the type "
                "otherwise"
            )
        # Questions without a label have no loss, and count as wrong.
        num_rows, answers = len(annotations.rows), annotations.rows.column("answer")
        num_unknown = sum(self.labels.label_of(answer) is None for answer in answers)
        if validates and self.config.best_metric == "loss" and num_unknown == num_rows:
            raise InputError(
                f"best_metric: {annotations.name} has no loss, none of the {num_rows} questions in "
                f"{annotations.path} has an answer that is {self._outside(annotations.rows)}. Name "
                "as ans2label_path the file that belongs to this set, or set best_metric to "
                "overall_acc."
            )
        if num_unknown:
            self._warn(
                f"{annotations.name}: {num_unknown} of the {num_rows} questions in "
                f"{annotations.path} count as wrong, their answers are not "
                f"{self._outside(annotations.rows)}"
            )

    def _outside(self, rows: SharedRows[QuestionRow]) -> str:
        """The map of labels, and the answers that it lacks."""
        unknown = describe_unknown(rows.column("answer"), self.labels)
        return f"in {self.config.ans2label_path} (ans2label_path): {unknown}"

    def build_model(self) -> nn.Module:
        """The family's model with a classifier of answers."""
        experiment, num_labels = self.experiment, max(len(self.labels), MIN_NUM_LABELS)
        architecture = experiment.resolved.architecture
        return experiment.spec.build_model(self.config, architecture, num_labels=num_labels)

    def prepare_checkpoint(self, model: Any, state: StateDict) -> StateDict:
        """The checkpoint, without its classifier if `new_classifier` is set.

        Raises:
            InputError: if its classifier has another size or other answers, or inference has none.
        """
        config, path = self.config, self.config.e2e_weights_path
        # Checkpoints of pretraining have no classifier: training adds one, inference cannot.
        classifier = names_like(state, model.CLASSIFIER)
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
        # A classifier that stays must mean the same answers.
        self._compare_labels(Path(str(path)))
        output = model.CLASSIFIER_OUTPUT
        self._check_size(state.get(output), model.get_parameter(output))
        if not config.do_inference:
            logger.info("%s: its classifier is taken over; new_classifier 1 trains a new one", path)
        return state

    def _check_size(self, there: Tensor | None, here: Tensor) -> None:
        """Refuse a classifier that differs from the model's in the number of outputs alone."""
        if there is None or there.shape[1:] != here.shape[1:] or len(there) == len(here):
            return
        config = self.config
        raise InputError(
            f"{config.e2e_weights_path}: its classifier has {len(there)} outputs, this model's "
            f"{len(here)}, because there are {len(self.labels)} answers in {config.ans2label_path} "
            f"(at least {MIN_NUM_LABELS} outputs). Give as ans2label_path the file that it was "
            f"trained with{self._or_new()}."
        )

    def _compare_labels(self, checkpoint: Path) -> None:
        """Refuse a classifier whose labels meant other answers, if its run has kept them."""
        run, now = run_directory_of(checkpoint), Path(self.config.ans2label_path)
        if run is None or not run.answer_labels.is_file():
            return
        before, here = read_answer_labels(run.answer_labels).texts, self.labels.texts
        changed = [label for label, text in enumerate(before) if here[label : label + 1] != (text,)]
        if not changed:
            return
        # Name the first label that changed.
        label = changed[0]
        meant = repr(here[label]) if label < len(here) else "no answer"
        raise InputError(
            f"ans2label_path: {now} is not the map that {checkpoint} was trained with, "
            f"{run.answer_labels}: label {label} is {before[label]!r} there, {meant} here. "
            f"Give --ans2label_path {run.answer_labels}{self._or_new()}."
        )

    def _or_new(self) -> str:
        """The other remedy, which only training has."""
        remedy = "; or set new_classifier to 1, to train a new one"
        return "" if self.config.do_inference else remedy

    def _warn(self, message: str) -> None:
        if self.experiment.engine.rank == 0:
            logger.warning(message)

    def build_evaluator(self, model: Any, *, progress: Progress) -> QuestionAnsweringEvaluator:
        config = self.config
        return QuestionAnsweringEvaluator(
            model,
            labels=self.labels,
            question_chunk=(
                config.inference_batch_size if config.do_inference else config.val_batch_size
            ),
            clip_aggregation=config.score_agg_func,
            progress=progress,
            **self.experiment.evaluator_arguments(),
        )

    def build_objective(
        self, model: Any, *, plan: TrainingPlan, progress: Progress
    ) -> QuestionAnsweringObjective:
        """Cross-entropy over the answers."""
        experiment = self.experiment
        return QuestionAnsweringObjective(
            model,
            engine=experiment.engine,
            normalize=experiment.normalize,
            evaluator=self.build_evaluator(model, progress=progress),
        )

    def protocol(self) -> dict[str, Any]:
        path = Path(self.config.ans2label_path)
        return {
            "ans2label": str(path),
            "ans2label_sha256": self.experiment.sha256_of(path),
            "num_answers": len(self.labels),
        }

    def write_results(
        self, folder: Path, outcome: QaOutcome, *, protocol: Mapping[str, Any]
    ) -> str:
        """Accuracies, and the answer to every question."""
        scores = write_answers(folder, outcome, protocol=protocol)
        return f"{scores['counts']['overall'][1]} questions\n{answers_table(scores)}"
