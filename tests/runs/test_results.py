from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alpro.configs.loading import load_config
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.distributed.engine import SingleProcess
from alpro.experiment.experiment import Experiment
from alpro.runs.results import protocol_of
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import CPU, TinyExperiment


def test_the_protocol_names_preprocessing_only_where_it_is_not_alpro_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = load_config(RetrievalConfig, TinyExperiment(tmp_path).arguments())
    experiment = Experiment(resolved, engine=SingleProcess(CPU, scale_loss=False))
    monkeypatch.setattr(experiment, "sha256_of", str)

    def protocol() -> dict[str, Any]:
        data: Any = SimpleNamespace(annotations=Path("a.jsonl"), folder=Path("videos"))
        return protocol_of(experiment, data, checkpoint=Path("model.pt"))

    before = protocol()
    assert "preprocessing" not in before
    padded = PixelPreprocessing(size=32, resize="pad")
    family = replace(experiment.family, preprocessing=lambda _config: padded)
    monkeypatch.setattr(experiment, "family", family)
    assert protocol() == before | {"preprocessing": {"resize": "pad"}}
