"""The keys of losses over pairs, from the command line to the tasks."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

from alpro.modeling.timesformer import TimeSformer
from alpro.tasks.pairs import global_negatives
from tasks import run_video_retrieval
from tests.factories import FakeDecoder, TinyExperiment
from tests.pretraining_factories import PretrainExperiment
from tests.tasks.conftest import Run, runner

FLAGS = ("--dry_run", "1", "--grad_cache_size", "2")


def rows_seen(run: Run, arguments: list[str]) -> set[int]:
    """Numbers of videos that go through a model at the same time."""
    forward, rows = TimeSformer.forward, []

    def spy(self: TimeSformer, frames: torch.Tensor) -> torch.Tensor:
        rows.append(len(frames))
        return forward(self, frames)

    with mock.patch.object(TimeSformer, "forward", spy):
        run(arguments)
    return set(rows)


def is_called(run: Run, task: str, arguments: list[str]) -> bool:
    """Whether a task gathers the pairs of all processes for VTM."""
    with mock.patch(f"{task}.global_negatives", wraps=global_negatives) as pool:
        run(arguments)
    return pool.called


def test_pair_keys_of_the_prompter(experiment: PretrainExperiment, run_prompter: Run) -> None:
    assert rows_seen(run_prompter, experiment.prompting(*FLAGS)) == {1, 2}  # batches are of 3
    assert rows_seen(run_prompter, experiment.prompting("--dry_run", "1")) == {3}


def test_pair_keys_of_pretraining(experiment: PretrainExperiment, run: Run) -> None:
    assert rows_seen(run, experiment.pretraining(*FLAGS)) == {1, 2}
    task = "alpro.families.alpro.pretraining_objective"
    assert is_called(run, task, experiment.pretraining(*FLAGS, "--itm_negatives", "global"))
    assert not is_called(run, task, experiment.pretraining(*FLAGS))


def test_pair_keys_of_retrieval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
    experiment, run = TinyExperiment(tmp_path), runner(run_video_retrieval, monkeypatch)
    assert rows_seen(run, experiment.arguments(*FLAGS)) == {1, 2}
    task = "alpro.tasks.retrieval.objective"
    assert is_called(run, task, experiment.arguments(*FLAGS, "--itm_negatives", "global"))
    assert not is_called(run, task, experiment.arguments(*FLAGS))
