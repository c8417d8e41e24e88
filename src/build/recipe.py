"""What a downstream task brings to the common course of a run in `src.build.finetuning`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from src.build.data import Annotations, Row, build_evaluation_set
from src.build.model import build_tokenizer, load_weights
from src.configs.loading import Resolved
from src.configs.schema import DatasetConfig, DownstreamConfig
from src.datasets.tokenization import Tokenizer
from src.distributed.engine import Engine
from src.evaluation.running import Progress
from src.evaluation.sets import EvaluationSet
from src.modeling.alpro import AlproModel
from src.training.seeding import seed_everything
from src.training.task import Task
from src.training.trainer import TrainingData, TrainingPlan

Config = TypeVar("Config", bound=DownstreamConfig)
Model = TypeVar("Model", bound=AlproModel)


class Evaluator(Protocol):
    """Evaluates its model on sets of the task's kind."""

    model: Any

    def run(self, data: Any) -> Any:
        """What the evaluation of one set gives; the same on every rank."""


class Recipe(ABC, Generic[Config, Row, Model]):
    """One task with its config; how its parts are built, what its results are."""

    ROWS: ClassVar[str]
    """What the rows of an annotation file are, in messages."""

    def __init__(self, resolved: Resolved[Config], *, engine: Engine) -> None:
        self.resolved = resolved
        self.config = resolved.config
        self.engine = engine

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The config's tokenizer."""
        return build_tokenizer(self.resolved)

    def evaluation_set(self, part: DatasetConfig, *, num_clips: int = 1) -> EvaluationSet[Row]:
        """A validation or test set, with so many clips per video."""
        return build_evaluation_set(
            self.config, self.annotations(part), num_clips=num_clips, engine=self.engine
        )

    def start_model(self, *, resumes: bool = False) -> Model:
        """The model with its starting weights, on the device, the same on every rank.

        Args:
            resumes: a restore file will fill the model; starting weights are left out.
        """
        seed_everything(self.config.seed)
        model = self.build_model()
        if not resumes:
            self.load_weights(model)
        return model.to(self.engine.device)

    def load_weights(self, model: Model) -> None:
        """Fill a new model from the files that the config names."""
        load_weights(model, self.config)

    def other_inputs(self) -> Mapping[str, Path]:
        """Config key -> file that the task reads beside annotations and weights."""
        return {}

    @abstractmethod
    def annotation_path(self, part: DatasetConfig) -> Path:
        """The annotation file of a set."""

    @abstractmethod
    def annotations(self, part: DatasetConfig) -> Annotations[Row]:
        """Read a set."""

    @abstractmethod
    def training_data(self) -> TrainingData:
        """All training sets of the config as one; logs what they hold."""

    @abstractmethod
    def build_model(self) -> Model:
        """The model, with random weights."""

    @abstractmethod
    def build_evaluator(self, model: Model, *, progress: Progress) -> Evaluator:
        """What scores the model, in validation and inference alike."""

    @abstractmethod
    def build_task(self, model: Model, evaluator: Any, *, plan: TrainingPlan) -> Task:
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
