"""Trains tiny models over fake videos."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alpro.program import run_script
from tasks import run_video_qa, run_video_retrieval
from tests.factories import FakeDecoder, TinyExperiment
from tests.question_factories import QaExperiment

Train = Callable[[TinyExperiment], Path]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains an experiment over fake videos, and returns the folder of the run."""
    for place in ("alpro.experiment.data", "alpro.inference.frame_input"):
        monkeypatch.setattr(f"{place}.make_decoder", lambda *_, **__: FakeDecoder())

    def run(experiment: TinyExperiment) -> Path:
        is_qa = isinstance(experiment, QaExperiment)
        arguments = experiment.arguments(num_train_epochs=1)
        monkeypatch.setattr(sys, "argv", ["run", *arguments])
        run_script((run_video_qa if is_qa else run_video_retrieval).main)
        return experiment.root / "run"

    return run


@pytest.fixture
def run(tmp_path: Path, train: Train) -> Path:
    return train(TinyExperiment(tmp_path))
