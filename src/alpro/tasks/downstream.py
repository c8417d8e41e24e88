"""Downstream tasks, finetuned and evaluated on annotated sets of videos: data and contract."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from alpro.configs.downstream import (
    DownstreamConfig,
    DownstreamDataset,
    annotation_file,
    extension_of,
)
from alpro.datasets.dataloader import ConcatDataset
from alpro.datasets.shared_rows import SharedRows
from alpro.datasets.transforms.augmentation import video_augmentation
from alpro.datasets.video_datasets import TrainingVideos
from alpro.errors import pluralize
from alpro.evaluation.evaluation_set import EvaluationSet, Evaluator, Progress
from alpro.experiment.data import (
    Annotations,
    Row,
    batch_sampler,
    build_decoder,
    build_evaluation_set,
    build_loader,
    find_videos,
    frame_reader,
    subsample,
    without_missing,
)
from alpro.experiment.experiment import Data, DatasetPaths, Experiment, TaskDefinition
from alpro.training.objective import TrainingData
from alpro.training.run_directory import RESULT_FILES, RunDirectory

Config = TypeVar("Config", bound=DownstreamConfig)


class TrainingItems(NamedTuple):
    """Training items of one set."""

    items: SharedRows[Any]
    """Each becomes a sample with its video."""
    num_rows: int
    """Rows that the items hold."""
    num_left_out: int = 0
    """Rows without a usable target."""


class DownstreamTask(TaskDefinition[Config], Generic[Config, Row]):
    """Definition of a downstream task: its rows, its batches and its scores."""

    ROW: ClassVar[str]
    """Plural noun for the rows of an annotation file, in messages."""

    def __init__(self, experiment: Experiment[Config]) -> None:
        super().__init__(experiment)
        self.data: DownstreamData[Row] = DownstreamData(self)

    def result_files(self) -> list[str]:
        """Files of the test sets' results, relative to the output folder."""
        best = RunDirectory(Path(self.config.output_dir), rank=0).checkpoint("best")
        return [
            file
            for part in self.config.test_datasets
            for file in self.files_of_results(part, best, step="best")
        ]

    def files_of_results(
        self, part: DownstreamDataset, checkpoint: Path, *, step: str
    ) -> list[str]:
        """Files of a set's results, relative to the output folder."""
        folder = self.results_folder(self.annotation_path(part), checkpoint, step=step)
        relative = folder.relative_to(self.config.output_dir)
        return [str(relative / name) for name in RESULT_FILES]

    def results_folder(self, annotations: Path, checkpoint: Path, *, step: str) -> Path:
        """The original's folder for results.

        Non-default protocols, and checkpoints from outside the run's own folder, have folders of
        their own; `step` is the checkpoint's name in the run's folder.
        """
        config = self.config
        own = RunDirectory(Path(config.output_dir), rank=0).checkpoint(step)
        model = step if checkpoint.absolute() == own.absolute() else checkpoint.stem
        protocol = f"{config.inference_n_clips}_{config.score_agg_func}{self.results_suffix()}"
        order = "" if config.frame_order == "original" else f"_{config.frame_order}"
        name = f"step_{model}_{protocol}{order}"
        return Path(config.output_dir) / f"results_{annotations.stem}" / name

    def entry(self) -> str | None:
        """Entry of the annotation file where a set has a map of them; None if none has."""
        return None

    def annotation_path(self, part: DownstreamDataset) -> Path:
        """The annotation file of a set."""
        return Path(annotation_file(part, self.entry()))

    @abstractmethod
    def read_rows(self, path: Path) -> SharedRows[Row]:
        """Read an annotation file."""

    @abstractmethod
    def training_items(self, annotations: Annotations[Row], rows: SharedRows[Row]) -> TrainingItems:
        """Make training items of some rows of a set."""

    def check_evaluated(self, annotations: Annotations[Row], *, validates: bool) -> None:  # noqa: B027
        """Check all rows of a set, even if only a few are evaluated (``debug``).

        A set that `validates` chooses the best checkpoint.

        Raises:
            InputError: if the task cannot be evaluated on them.
        """

    @abstractmethod
    def build_collate(self) -> Callable[[list[Any]], Any]:
        """The collate function for samples with their items."""

    @abstractmethod
    def build_evaluator(self, model: Any, *, progress: Progress) -> Evaluator:
        """The evaluator of the model, for validation and inference alike."""

    def results_suffix(self) -> str:
        """Suffix of the results folder for non-default protocols of the task."""
        return ""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Task-specific facts on which the numbers depend."""

    @abstractmethod
    def write_results(self, folder: Path, outcome: Any, *, protocol: Mapping[str, Any]) -> str:
        """Write the outcome of an evaluation; return a summary and a table for the log."""


class DownstreamData(Data, Generic[Row]):
    """The data sets of a downstream task."""

    SETS = ("train_datasets", "val_datasets", "test_datasets")
    _config: DownstreamConfig

    def __init__(self, task: DownstreamTask[Any, Row]) -> None:
        super().__init__(task.experiment)
        self._task = task

    def paths(self, key: str) -> list[DatasetPaths]:
        parts = enumerate(getattr(self._config, key))
        return [
            DatasetPaths(f"{key}.{i}", one.name, "txt", self._task.annotation_path(one), one.img)
            for i, one in parts
        ]

    def training(self) -> TrainingData:
        config, task = self._config, self._task
        # Read each set, keep the rows that can be trained on, and describe it.
        sets, description, num_left_out = [], [], 0
        decoder = build_decoder(config)
        for part in config.train_datasets:
            annotations = self._read(part)
            present = without_missing(annotations.rows, annotations.missing)
            rows = subsample(present, share=config.data_ratio, seed=config.seed)
            chosen = task.training_items(annotations, rows)
            num_videos = len(set(chosen.items.column("video_id")))
            counts = f"{pluralize(chosen.num_rows, task.ROW)}, {pluralize(num_videos, 'video')}"
            description.append(f"{part.name}: {counts} to train on")
            num_left_out += chosen.num_left_out
            reader = replace(
                frame_reader(
                    config, annotations.videos, frame_size=config.crop_img_size, decoder=decoder
                ),
                num_clips=config.train_n_clips,
                independent_clips=config.random_sample_clips,
            )
            augment = video_augmentation() if config.augmentation == "randaugment" else None
            sets.append(TrainingVideos(chosen.items, reader, seed=config.seed, augment=augment))
        # Join the sets; batches are drawn from all of them.
        dataset, collate = ConcatDataset(sets), task.build_collate()
        engine = self._experiment.engine
        return TrainingData(
            batch_sampler(config, num_examples=len(dataset), engine=engine),
            partial(build_loader, config, dataset, collate=collate, engine=engine),
            num_samples=len(dataset),
            num_left_out=num_left_out,
            description=description,
        )

    def validation(self) -> list[EvaluationSet[Row]]:
        return [self._evaluated(self._config.val_datasets[0], num_clips=1, validates=True)]

    def test(self, part: DownstreamDataset, *, num_clips: int = 1) -> EvaluationSet[Row]:
        """A test set, with some clips per video."""
        return self._evaluated(part, num_clips=num_clips, validates=False)

    def describe(self, data: EvaluationSet[Row]) -> str:
        rows = pluralize(len(data.rows), self._task.ROW)
        size = f"{rows}, {pluralize(len(data.video_ids), 'video')}"
        return f"{data.name} ({data.annotations}): {size}"

    def _evaluated(
        self, part: DownstreamDataset, *, num_clips: int, validates: bool
    ) -> EvaluationSet[Row]:
        annotations, engine = self._read(part), self._experiment.engine
        self._task.check_evaluated(annotations, validates=validates)
        return build_evaluation_set(self._config, annotations, num_clips=num_clips, engine=engine)

    def _read(self, part: DownstreamDataset) -> Annotations[Row]:
        """Annotations of a set, and its videos."""
        config, task = self._config, self._task
        path = task.annotation_path(part)
        self._experiment.sha256_of(path)  # the file may be gone when it is evaluated
        names = " ".join(dataset.name for dataset in config.train_datasets)
        return find_videos(
            part,
            task.read_rows(path),
            path=path,
            extension=extension_of(task.entry() or names),
            allowed=config.allow_missing_videos,
        )
