"""An experiment: a config with its family, its task and the job that runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from torch import Tensor, nn

from alpro.configs.experiment import ExperimentConfig
from alpro.configs.loading import ResolvedConfig
from alpro.datasets.annotations import sha256_of
from alpro.datasets.tokenization import Tokenizer, load_tokenizer, tokenize
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine, usable_precision
from alpro.errors import InputError
from alpro.evaluation.evaluation_set import Progress
from alpro.experiment.weights import load_starting_weights
from alpro.families.family import ModelFamily
from alpro.families.registry import load_family
from alpro.modeling.state_dict_adapter import StateDict
from alpro.training.objective import Objective, TrainingData, TrainingPlan
from alpro.training.train_state import seed_everything

Config = TypeVar("Config", bound=ExperimentConfig)


class Experiment(Generic[Config]):
    """Everything that a config determines, built on demand."""

    def __init__(self, resolved: ResolvedConfig[Config], *, engine: Engine) -> None:
        self.resolved = resolved
        self.config = resolved.config
        self.engine = engine
        self.family: ModelFamily = load_family(self.config.family)
        # A family need not have all tasks.
        if self.config.TASK not in self.family.tasks:
            raise InputError(
                f"family: {self.config.family} has no task {self.config.TASK}, only "
                f"{', '.join(self.family.tasks)}. Use another script or another family."
            )
        self.spec = self.family.load_task(self.config.TASK)
        self._hashes: dict[Path, str] = {}
        self.task: Any = self.spec.definition(self)
        """The task's `TaskDefinition`."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The family's tokenizer, from the config's folder."""
        return load_tokenizer(
            Path(self.config.tokenizer_dir),
            vocab_size=self.family.vocab_size(self.resolved.architecture),
            layout=self.family.tokenizer,
        )

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts to (ids, mask)."""
        return tokenize(self.tokenizer, texts, max_length=self.config.max_txt_len)

    @cached_property
    def normalize(self) -> Normalize:
        """Pixel normalisation on the engine's device."""
        return Normalize.of(self.family.preprocessing(self.config)).to(self.engine.device)

    @property
    def precision(self) -> str:
        """Number format of forward passes outside of training."""
        return usable_precision(self.config.precision, self.engine.device)

    def evaluator_arguments(self) -> dict[str, Any]:
        """Arguments common to the evaluators of all tasks."""
        return {
            "tokenize": self.tokenize,
            "normalize": self.normalize,
            "engine": self.engine,
            "precision": self.precision,
            "allow_missing_videos": self.config.allow_missing_videos,
        }

    def sha256_of(self, path: Path) -> str:
        """SHA-256 of a file, cached: the file may vanish or change after the first call."""
        if path not in self._hashes:
            self._hashes[path] = sha256_of(path)
        return self._hashes[path]

    def start_model(self, *, resumes: bool = False) -> Any:
        """The model with its starting weights, on the device, the same on every rank.

        A run that resumes leaves the weights to its restore file.
        """
        # Weights that no file provides are drawn from the seed, alike on all ranks.
        seed_everything(self.config.seed)
        model = self.task.build_model()
        if not resumes:
            load_starting_weights(
                model,
                self.config,
                family=self.family,
                allowed_missing=self.task.allowed_missing(),
                prepare=partial(self.task.prepare_checkpoint, model),
            )
        model.to(self.engine.device)
        if not resumes:
            # What remains is computed by the model itself, on its device.
            self.task.complete_model(model)
        return model


class DatasetPaths(NamedTuple):
    """Paths of a set; images need no folder if their own paths are complete."""

    key: str
    """Key of the set in the config: ``train_datasets.0``."""
    name: str
    annotations_key: str
    """Key of the annotation file in the set: ``txt``."""
    annotations: Path
    folder: str | None
    holds_videos: bool = True
    """Videos may be in an LMDB or a tar file, images only in a folder."""


class Data(ABC):
    """The data sets of an experiment."""

    SETS: ClassVar[tuple[str, ...]] = ("train_datasets", "val_datasets")
    """Keys of the sets that a training run reads."""

    def __init__(self, experiment: Experiment[Any]) -> None:
        self._experiment = experiment
        self._config = experiment.config

    @abstractmethod
    def paths(self, key: str) -> list[DatasetPaths]:
        """Paths of the sets that a key of the config lists."""

    def all_paths(self) -> list[DatasetPaths]:
        """Paths of all sets that a training run reads."""
        return [one for key in self.SETS for one in self.paths(key)]

    @abstractmethod
    def training(self) -> TrainingData:
        """All training sets as one."""

    @abstractmethod
    def validation(self) -> Sequence[Any]:
        """Validation sets of a training run."""

    @abstractmethod
    def describe(self, data: Any) -> str:
        """One of these sets as a line of the log."""


class TaskDefinition(ABC, Generic[Config]):
    """Task-specific parts of an experiment: data, model, objective and further files."""

    data: Data

    def __init__(self, experiment: Experiment[Config]) -> None:
        self.experiment = experiment
        self.config = experiment.config

    def other_inputs(self, *, resumes: bool = False) -> Mapping[str, Path]:  # noqa: ARG002
        """Config key -> file that the task reads beside annotations and weights."""
        return {}

    def check(self, *, resumes: bool) -> None:  # noqa: B027
        """Check the contents of the task's own files, before anything is built."""

    def result_files(self) -> list[str]:
        """Files written after the training, relative to the output folder."""
        return []

    def derived(self, data: TrainingData) -> dict[str, Any]:  # noqa: ARG002
        """Facts about the training data that ``log/args.json`` keeps beside the config."""
        return {}

    def build_model(self) -> nn.Module:
        """The family's model with random weights."""
        experiment = self.experiment
        return experiment.spec.build_model(self.config, experiment.resolved.architecture)

    def allowed_missing(self) -> Sequence[str]:
        """Patterns of parameters that a checkpoint may lack."""
        return self.experiment.spec.allowed_missing

    def prepare_checkpoint(self, model: Any, state: StateDict) -> StateDict:  # noqa: ARG002
        """Select the tensors of a checkpoint that the model takes; all of them by default.

        Raises:
            InputError: if the task's own part does not fit the model.
        """
        return state

    def complete_model(self, model: Any) -> None:  # noqa: B027
        """Fill what starting weights leave open."""

    @abstractmethod
    def build_objective(self, model: Any, *, plan: TrainingPlan, progress: Progress) -> Objective:
        """The objective with its validation."""
