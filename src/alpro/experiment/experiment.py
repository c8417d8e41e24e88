"""What every task brings to the common course of a training run in `alpro.experiment.run`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from alpro.configs.loading import ResolvedConfig
from alpro.configs.schema import ExperimentConfig
from alpro.datasets.annotations import sha256_of
from alpro.datasets.tokenization import Tokenizer, tokenize, vocabulary_file
from alpro.datasets.transforms.normalize import Normalize
from alpro.distributed.engine import Engine
from alpro.evaluation.eval_mode import Progress
from alpro.experiment.model import build_tokenizer
from alpro.experiment.run_start import RunStart, agree_on_beginning
from alpro.training.plan import TrainingData, TrainingPlan
from alpro.training.precision import usable_precision
from alpro.training.task import Task

Config = TypeVar("Config", bound=ExperimentConfig)
Model = TypeVar("Model", bound=nn.Module)


class Experiment(ABC, Generic[Config, Model]):
    """One task with its config, and how the parts of its training are built."""

    def __init__(self, resolved: ResolvedConfig[Config], *, engine: Engine) -> None:
        self.resolved = resolved
        self.config = resolved.config
        self.engine = engine
        self._hashes: dict[Path, str] = {}

    @cached_property
    def beginning(self) -> RunStart:
        """How a training run begins; the ranks agree on it, so all ask at the same place."""
        return agree_on_beginning(self.config, engine=self.engine)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The config's tokenizer."""
        return build_tokenizer(self.resolved)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts to (ids, mask)."""
        return tokenize(self.tokenizer, texts, max_length=self.config.max_txt_len)

    @cached_property
    def normalize(self) -> Normalize:
        """Pixel normalisation on the engine's device."""
        config = self.config
        return Normalize(config.img_pixel_mean, config.img_pixel_std).to(self.engine.device)

    @property
    def precision(self) -> str:
        """Number format of forward passes outside of training."""
        return usable_precision(self.config.precision, self.engine.device)

    def other_inputs(self) -> Mapping[str, Path]:
        """Config key -> file that the task reads beside annotations and weights."""
        return {}

    def sha256_of(self, path: Path) -> str:
        """SHA-256 of a file as it was when it was first asked for; it may vanish or change then."""
        if path not in self._hashes:
            self._hashes[path] = sha256_of(path)
        return self._hashes[path]

    def input_hashes(self) -> dict[str, str]:
        """Path of each file that a run learns from -> its SHA-256, the vocabulary's by its folder.

        A run whose files have changed is another one.
        """
        files = [*self.annotation_files(), *self.other_inputs().values()]
        folder = Path(self.config.tokenizer_dir)
        return {
            **{str(path): self.sha256_of(path) for path in files},
            str(folder): self.sha256_of(vocabulary_file(folder)),
        }

    def result_files(self) -> list[str]:
        """Files that will be written after the training, from the output folder."""
        return []

    def derived(self, data: TrainingData) -> dict[str, Any]:  # noqa: ARG002
        """What ``log/args.json`` tells of the training data beside the config."""
        return {}

    @abstractmethod
    def check_inputs(self) -> None:
        """Report all files that are missing for training."""

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """Those of all sets that a training run reads."""

    @abstractmethod
    def training_data(self) -> TrainingData:
        """All training sets of the config as one."""

    @abstractmethod
    def validation(self) -> Any:
        """What the task's ``evaluate`` takes."""

    @abstractmethod
    def describe(self, validation: Any) -> list[str]:
        """What a run is validated on, in lines for the log."""

    @abstractmethod
    def build_model(self) -> Model:
        """The model, with random weights."""

    @abstractmethod
    def start_model(self, *, resumes: bool = False) -> Model:
        """The model with its starting weights, on the device, the same on every rank.

        Args:
            resumes: a restore file will fill the model; starting weights are left out.
        """

    @abstractmethod
    def build_task(self, model: Model, *, plan: TrainingPlan, progress: Progress) -> Task:
        """What is trained, and how it is validated."""
