"""Runs the entry scripts in this process, over an experiment with fake videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from alpro.datasets.tokenization import Tokenizer
from pretrain import run_pretrain_contrastive_only, run_pretrain_sparse
from tests.factories import FakeDecoder, make_tokenizer
from tests.pretraining_factories import PretrainExperiment
from tests.tasks.conftest import Refuse, Run, refusal, runner


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainExperiment:
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
    return PretrainExperiment(tmp_path)


@pytest.fixture
def run_prompter(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``src/pretrain/run_pretrain_contrastive_only.py`` with some arguments."""
    return runner(run_pretrain_contrastive_only, monkeypatch)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``src/pretrain/run_pretrain_sparse.py`` with some arguments."""
    return runner(run_pretrain_sparse, monkeypatch)


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The message with which pretraining refuses some arguments."""
    return refusal(run, capsys)
