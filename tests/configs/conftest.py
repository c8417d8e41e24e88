"""A minimal valid experiment on disk, and a loader for variations of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alpro.configs.errors import ConfigError
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.tasks.pretraining.config import PretrainConfig, PrompterConfig
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig

Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a value as JSON under a name of the test's folder."""

    def write_json(name: str, value: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write_json


@pytest.fixture
def experiment(write: Write) -> dict[str, Any]:
    """The smallest valid retrieval experiment; its model files are empty objects (defaults)."""
    dataset = {"name": "pets", "txt": "pets/train.jsonl", "img": "pets/videos"}
    return {
        "train_datasets": [dataset],
        "val_datasets": [{**dataset, "txt": "pets/val.jsonl"}],
        "crop_img_size": 224,
        "img_pixel_mean": [0.5, 0.5, 0.5],
        "img_pixel_std": [0.25, 0.25, 0.25],
        "tokenizer_dir": "tokenizer",
        "model_config": str(write("text.json", {})),
        "visual_model_cfg": str(write("video.json", {})),
        "output_dir": "runs/pets",
    }


class Loader:
    """Loads an experiment with changes (the value "drop" removes a key) and flags."""

    def __init__(self, config_class: Any, experiment: dict[str, Any], write: Write) -> None:
        self.config_class = config_class
        self.experiment = experiment
        self.write = write

    def path(self, changes: dict[str, Any] | None = None) -> str:
        """Write the changed experiment to a file."""
        values = {**self.experiment, **(changes or {})}
        return str(self.write("experiment.json", {k: v for k, v in values.items() if v != "drop"}))

    def __call__(self, changes: dict[str, Any] | None = None, *flags: str) -> ResolvedConfig[Any]:
        return load_config(self.config_class, ["--config", self.path(changes), *flags])

    def errors(self, changes: dict[str, Any] | None = None, *flags: str) -> list[str]:
        """The errors of a configuration that must have some."""
        with pytest.raises(ConfigError) as caught:
            self(changes, *flags)
        return caught.value.errors


@pytest.fixture
def load(experiment: dict[str, Any], write: Write) -> Loader:
    return Loader(RetrievalConfig, experiment, write)


@pytest.fixture
def load_qa(experiment: dict[str, Any], write: Write) -> Loader:
    """The same experiment as one of question answering."""
    return Loader(QaConfig, {**experiment, "ans2label_path": "pets/ans2label.json"}, write)


@pytest.fixture
def pretraining(experiment: dict[str, Any]) -> dict[str, Any]:
    """The smallest valid experiment of either stage of pretraining."""
    videos = {"name": "pets", "ann": "pets/train.csv", "img": "pets/videos"}
    return {**experiment, "train_datasets": [videos], "val_datasets": [videos]}


@pytest.fixture
def load_prompter(pretraining: dict[str, Any], write: Write) -> Loader:
    return Loader(PrompterConfig, pretraining, write)


@pytest.fixture
def load_pretraining(pretraining: dict[str, Any], write: Write) -> Loader:
    return Loader(PretrainConfig, {**pretraining, "use_itc": 1, "use_mlm": 1}, write)
