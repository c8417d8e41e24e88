"""The examples in docstrings run, with small random models and a real clip."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest

import alpro
import alpro.datasets.decoding.windows
import alpro.inference.model
from alpro.inference.export import export_model
from alpro.program import run_script
from tasks import run_video_qa, run_video_retrieval
from tests.datasets.clips import write_clip
from tests.factories import FakeDecoder, TinyExperiment
from tests.question_factories import QaExperiment


@pytest.fixture
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves ``model``, ``answering_model`` and ``clip.mp4`` in the current folder."""
    with monkeypatch.context() as patch:
        patch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
        for script, kind, name in (
            (run_video_retrieval, TinyExperiment, "model"),
            (run_video_qa, QaExperiment, "answering_model"),
        ):
            experiment = kind(tmp_path / kind.__name__)
            patch.setattr(sys, "argv", ["run", *experiment.arguments(num_train_epochs=1)])
            run_script(script.main)
            export_model(experiment.root / "run", tmp_path / name)
    write_clip(tmp_path / "clip.mp4", num_frames=16)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_models")
def test_examples_run() -> None:
    names = {"alpro": alpro, "model": alpro.load("model")}
    for module, least in ((alpro.inference.model, 5), (alpro.datasets.decoding.windows, 1)):
        examples = [one for one in doctest.DocTestFinder().find(module) if one.examples]
        assert len(examples) >= least
        for one in examples:
            one.globs.update(names)
            failed, _ = doctest.DocTestRunner(verbose=False).run(one)
            assert failed == 0, one.name
