"""Runs the entry script in this process, over an experiment with fake videos."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alpro.program import run_script
from tasks import run_video_qa, run_video_retrieval
from tests.factories import FakeDecoder, TinyExperiment
from tests.question_factories import QaExperiment

Run = Callable[[Sequence[str]], None]
Refuse = Callable[[Sequence[str]], str]


def content(path: Path) -> Any:
    """Content of a JSON file."""
    return json.loads(path.read_text())


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyExperiment:
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
    return TinyExperiment(tmp_path)


@pytest.fixture
def qa_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> QaExperiment:
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
    return QaExperiment(tmp_path)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``src/tasks/run_video_retrieval.py`` with some arguments."""
    return runner(run_video_retrieval, monkeypatch)


@pytest.fixture
def run_qa(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``src/tasks/run_video_qa.py`` with some arguments."""
    return runner(run_video_qa, monkeypatch)


def runner(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs an entry script in this process."""
    # Scripts run from any folder; nothing may depend on this one.
    monkeypatch.chdir("/")

    def run_with(arguments: Sequence[str]) -> None:
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *arguments])
        run_script(script.main)

    return run_with


@pytest.fixture
def refused(run: Run, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The message with which retrieval refuses some arguments, ended with exit code 2."""
    return refusal(run, capsys)


@pytest.fixture
def refused_qa(run_qa: Run, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """The message with which question answering refuses some arguments."""
    return refusal(run_qa, capsys)


def refusal(run: Run, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Gives the message with which a script refuses some arguments, ended with exit code 2."""

    def message_of(arguments: Sequence[str]) -> str:
        with pytest.raises(SystemExit) as end:
            run(arguments)
        assert end.value.code == 2
        _, separator, message = capsys.readouterr().err.rpartition("error: ")
        assert separator
        assert "Traceback" not in message
        return message

    return message_of
