"""What a downstream task, finetuned and evaluated on data sets of its own, brings to a run."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from alpro.configs.downstream import DownstreamDataset
from alpro.configs.schema import DownstreamConfig
from alpro.datasets.dataloader import ConcatDataset
from alpro.datasets.samplers import ResumableBatchSampler
from alpro.datasets.shared_rows import SharedRows
from alpro.evaluation.eval_mode import Progress
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.experiment.data import (
    Annotations,
    Row,
    build_decoder,
    build_evaluation_set,
    build_training_data,
    build_training_set,
    read_annotations,
    training_rows,
)
from alpro.experiment.experiment import Experiment
from alpro.experiment.model import load_weights
from alpro.experiment.preflight import DatasetPaths, check_training_inputs
from alpro.experiment.results import results_folder
from alpro.families.alpro.model import AlproModel
from alpro.modeling.state_dict_maps import StateDict
from alpro.training.plan import TrainingData, TrainingPlan
from alpro.training.run_directory import RESULT_FILES, RunDirectory
from alpro.training.seeding import seed_everything
from alpro.training.task import Task

Config = TypeVar("Config", bound=DownstreamConfig)
Model = TypeVar("Model", bound=AlproModel)


class Evaluator(Protocol):
    """Evaluates its model on sets of the task's kind."""

    model: Any

    def run(self, data: Any) -> Any:
        """What the evaluation of one set gives; the same on every rank."""


class TrainingItems(NamedTuple):
    """What is trained on of one set."""

    items: SharedRows[Any]
    """What a sample is made of: one item and its video."""
    num_rows: int
    """Rows that the items hold."""
    num_left_out: int = 0
    """Rows that nothing can be learnt from."""


class FinetuningExperiment(Experiment[Config, Model], Generic[Config, Row, Model]):
    """One downstream task with its config; how its parts are built, what its results are."""

    ROWS: ClassVar[str]
    """What the rows of an annotation file are, in messages."""
    MAY_BE_MISSING: ClassVar[tuple[str, ...]] = ()
    """Patterns of parameters that the checkpoint of another task may lack."""

    def check_inputs(self) -> None:
        """Report all that is missing for training."""
        config = self.config
        check_training_inputs(
            config,
            sets=[
                DatasetPaths(
                    f"{key}.{index}", part.name, "txt", self.annotation_path(part), part.img
                )
                for key in ("train_datasets", "val_datasets", "test_datasets")
                for index, part in enumerate(getattr(config, key))
            ],
            others=self.other_inputs(),
            resumes=self.beginning.resumes,
        )

    def annotation_files(self) -> list[Path]:
        """Those of all sets that a training run reads."""
        config = self.config
        parts = (*config.train_datasets, *config.val_datasets, *config.test_datasets)
        return [self.annotation_path(part) for part in parts]

    def result_files(self) -> list[str]:
        """Files that the test sets' results will be in, from the output folder."""
        best = RunDirectory(Path(self.config.output_dir), rank=0).checkpoint("best")
        return [
            file
            for part in self.config.test_datasets
            for file in self.files_of_results(part, best, step="best")
        ]

    def files_of_results(
        self, part: DownstreamDataset, checkpoint: Path, *, step: str
    ) -> list[str]:
        """Files that the results of a set will be in, from the output folder."""
        folder = results_folder(
            self.config,
            self.annotation_path(part),
            checkpoint=checkpoint,
            step=step,
            suffix=self.results_suffix(),
        ).relative_to(self.config.output_dir)
        return [str(folder / name) for name in RESULT_FILES]

    def annotations(self, part: DownstreamDataset) -> Annotations[Row]:
        """Read a set; MSVD's videos are ``.avi``, all others ``.mp4``."""
        self.sha256_of(self.annotation_path(part))  # the file may be gone when it is evaluated
        return read_annotations(
            self.config,
            part,
            path=self.annotation_path(part),
            read=self.read_rows,
            extension=".avi" if "msvd" in self.data_name() else ".mp4",
        )

    def training_data(self) -> TrainingData:
        """All training sets of the config as one."""
        sets, description, num_left_out = [], [], 0
        decoder = build_decoder(self.config)
        for part in self.config.train_datasets:
            found = self.annotations(part)
            chosen = self.training_items(found, training_rows(self.config, found))
            num_videos = len(set(chosen.items.column("video_id")))
            description.append(
                f"{part.name}: {chosen.num_rows} {self.ROWS}, {num_videos} videos to train on"
            )
            num_left_out += chosen.num_left_out
            sets.append(
                build_training_set(self.config, chosen.items, videos=found.videos, decoder=decoder)
            )
        dataset = ConcatDataset(sets)
        return build_training_data(
            self.config,
            dataset,
            order=partial(ResumableBatchSampler, len(dataset)),
            collate=self.build_collate(),
            num_left_out=num_left_out,
            description=description,
            engine=self.engine,
        )

    def validation(self) -> EvaluationSet[Row]:
        """The set that a training run is validated on."""
        return self._evaluation_set(self.config.val_datasets[0], num_clips=1, validates=True)

    def evaluation_set(self, part: DownstreamDataset, *, num_clips: int = 1) -> EvaluationSet[Row]:
        """A set to be tested on, with so many clips per video."""
        return self._evaluation_set(part, num_clips=num_clips, validates=False)

    def describe(self, validation: EvaluationSet[Row]) -> list[str]:
        """The size of a set."""
        size = f"{len(validation.rows)} {self.ROWS}, {len(validation.video_ids)} videos"
        return [f"{validation.name} ({validation.annotations}): {size}"]

    def _evaluation_set(
        self, part: DownstreamDataset, *, num_clips: int, validates: bool
    ) -> EvaluationSet[Row]:
        found = self.annotations(part)
        self.check_evaluated(found, validates=validates)
        return build_evaluation_set(self.config, found, num_clips=num_clips, engine=self.engine)

    def check_evaluated(self, found: Annotations[Row], *, validates: bool) -> None:
        """Check the rows of a set, all of them also where only a few are evaluated (``debug``).

        Args:
            found: the set.
            validates: it chooses the best checkpoint.

        Raises:
            InputError: if the task cannot be evaluated on them.
        """

    def evaluator_arguments(self) -> dict[str, Any]:
        """What the evaluators of all tasks are told alike."""
        config = self.config
        return {
            "tokenize": self.tokenize,
            "normalize": self.normalize,
            "engine": self.engine,
            "precision": self.precision,
            "clip_aggregation": config.score_agg_func,
            "allow_missing_videos": config.allow_missing_videos,
        }

    def start_model(self, *, resumes: bool = False) -> Model:
        """The model with its starting weights, on the device, the same on every rank.

        Args:
            resumes: a restore file will fill the model; starting weights are left out.
        """
        seed_everything(self.config.seed)
        model = self.build_model()
        if not resumes:
            load_weights(
                model,
                self.config,
                allowed_missing=self.MAY_BE_MISSING,
                prepare=partial(self.prepare_checkpoint, model),
            )
        return model.to(self.engine.device)

    def prepare_checkpoint(
        self,
        model: Model,  # noqa: ARG002
        state: StateDict,
    ) -> StateDict:
        """What is wanted of the checkpoint that fills a new model; all of it.

        Raises:
            InputError: if the part that is the task's own is not fit for the model.
        """
        return state

    def build_task(self, model: Model, *, plan: TrainingPlan, progress: Progress) -> Task:
        """What is trained, validated as the model is evaluated."""
        evaluator = self.build_evaluator(model, progress=progress)
        return self.task_with(model, evaluator, plan=plan)

    @abstractmethod
    def annotation_path(self, part: DownstreamDataset) -> Path:
        """The annotation file of a set."""

    @abstractmethod
    def read_rows(self, path: Path) -> SharedRows[Row]:
        """Read an annotation file."""

    @abstractmethod
    def data_name(self) -> str:
        """What the sets are called; has ``msvd`` in it for those of MSVD."""

    @abstractmethod
    def training_items(self, found: Annotations[Row], rows: SharedRows[Row]) -> TrainingItems:
        """What is trained on of some rows of a set."""

    @abstractmethod
    def build_collate(self) -> Callable[[list[Any]], Any]:
        """Makes a batch of samples with their items."""

    @abstractmethod
    def build_evaluator(self, model: Model, *, progress: Progress) -> Evaluator:
        """What scores the model, in validation and inference alike."""

    @abstractmethod
    def task_with(self, model: Model, evaluator: Any, *, plan: TrainingPlan) -> Task:
        """What is trained, and validated by an evaluator of :meth:`build_evaluator`."""

    @abstractmethod
    def results_suffix(self) -> str:
        """Ending of the results folder's name, for ways to evaluate that are the task's own."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """What the numbers depend on that is the task's own."""

    @abstractmethod
    def write_results(self, folder: Path, outcome: Any, *, protocol: Mapping[str, Any]) -> str:
        """Write what an evaluation gave; returns a summary and a table for the log."""
