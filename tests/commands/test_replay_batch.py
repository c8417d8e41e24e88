from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from alpro.commands.replay_batch import main
from alpro.configs.loading import load_config
from alpro.datasets.video_datasets import UnreadableVideo
from alpro.errors import RunError
from alpro.experiment.experiment import Experiment
from alpro.families.alpro.pretraining_objective import PretrainingObjective
from alpro.families.alpro.prompter_pretraining import PrompterObjective
from alpro.runs.run import finetune, launch_run, pretrain
from alpro.tasks.pretraining.batches import PretrainBatch
from alpro.tasks.pretraining.config import PretrainConfig, PrompterConfig
from alpro.tasks.question_answering.batches import QaBatch
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.question_answering.objective import QuestionAnsweringObjective
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.tasks.retrieval.objective import RetrievalBatch, RetrievalObjective
from tests.factories import FakeDecoder, TinyExperiment, write_videos
from tests.pretraining_factories import PretrainExperiment
from tests.question_factories import QaExperiment
from tests.training.toys import assert_same

FORWARD = RetrievalObjective.forward


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """What a run has left that a NaN has stopped in its second update, which has two batches."""
    experiment = TinyExperiment(tmp_path / "experiment")
    arguments = experiment.arguments(
        output="run", gradient_accumulation_steps=2, train_batch_size=1
    )
    calls = iter(range(100))

    def forward(task: RetrievalObjective, batch: Any) -> dict[str, Tensor]:
        losses = FORWARD(task, batch)
        if next(calls) == 3:
            losses["loss"] = losses["loss"] * torch.nan
        return losses

    with (
        mock.patch("alpro.experiment.data.make_decoder", return_value=FakeDecoder()),
        mock.patch.object(RetrievalObjective, "forward", forward),
        launch_run(load_config(RetrievalConfig, arguments)) as engine,
        pytest.raises(RunError, match="update 2: the loss is not finite"),
    ):
        finetune(Experiment(load_config(RetrievalConfig, arguments), engine=engine))
    return next((tmp_path / "experiment").rglob("step_2_rank_0.pt"))


def test_an_update_is_repeated(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [name for batch in torch.load(stopped)["batches"] for name in batch["video_ids"]]
    assert main(["--file", str(stopped)]) == 0
    first = capsys.readouterr().out.splitlines()
    assert [line for line in first if line.startswith("batch")] == [
        f"batch {number} of 2: {name}" for number, name in enumerate(ids, 1)
    ]
    assert first.count("  first module with an output that is not finite: none") == 2
    assert first[-1].startswith("parameters with a gradient that is not finite: 0 of ")
    assert main(["--file", str(stopped)]) == 0
    assert capsys.readouterr().out.splitlines() == first  # dropout and negatives included


def test_the_first_non_finite_module_and_parameters_are_printed(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stopped.with_name("step_2_model.pt")
    weights = torch.load(path)
    weights["text_proj.weight"][0, 0] = torch.nan
    torch.save(weights, path)
    assert main(["--file", str(stopped)]) == 0
    said = capsys.readouterr().out
    assert "  loss nan\n" in said
    assert "first module with an output that is not finite: text_proj\n" in said
    assert "parameters with a gradient that is not finite: 0 of" not in said


@dataclass(frozen=True)
class Kind:
    """A kind of run, whose batches are of one class."""

    config: type[Any]
    task: type[Any]
    run: Callable[[Any], None]
    experiment: type[TinyExperiment]
    batch: type[Any]


KINDS = {
    "retrieval": Kind(
        *(RetrievalConfig, RetrievalObjective, finetune, TinyExperiment),
        RetrievalBatch,
    ),
    "questions": Kind(
        *(QaConfig, QuestionAnsweringObjective, finetune, QaExperiment),
        QaBatch,
    ),
    "prompter": Kind(
        *(PrompterConfig, PrompterObjective, pretrain, PretrainExperiment),
        PretrainBatch,
    ),
    "pretraining": Kind(
        *(PretrainConfig, PretrainingObjective, pretrain, PretrainExperiment),
        PretrainBatch,
    ),
}
BROKEN_VIDEOS = ("train0", "train1", "train2")


def stop_in_second_update(kind: Kind, root: Path) -> tuple[Path, list[Any], list[float]]:
    """Let a NaN stop a run, of whose training videos some are broken.

    Returns:
        What the run has left, the update's two batches, and their losses without the NaN.
    """
    experiment = kind.experiment(root, num_train=8)
    write_videos(root / "videos", BROKEN_VIDEOS, broken=BROKEN_VIDEOS)
    changes: dict[str, Any] = {
        **{"gradient_accumulation_steps": 2, "train_batch_size": 2},
        **{"max_unreadable_fraction": 1.0, "num_train_epochs": 4},
    }
    command = experiment.arguments
    if kind.config is PrompterConfig:
        assert isinstance(experiment, PretrainExperiment)
        command = experiment.prompting
    resolved = load_config(kind.config, command(output="run", **changes))
    original, batches, losses = kind.task.forward, [], []

    def forward(task: Any, batch: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = original(task, batch)
        if task.training:
            batches.append(batch)
            losses.append(float(found["loss"].detach()))
            if len(batches) == 4:
                found["loss"] = found["loss"] * torch.nan
        return found

    with (
        mock.patch("alpro.experiment.data.make_decoder", return_value=FakeDecoder()),
        mock.patch.object(kind.task, "forward", forward),
        launch_run(resolved) as engine,
        pytest.raises(RunError, match="update 2: the loss is not finite"),
    ):
        kind.run(Experiment(resolved, engine=engine))
    return next(root.rglob("step_2_rank_0.pt")), batches[2:], losses[2:]


@pytest.mark.parametrize("name", KINDS)
def test_batches_of_every_kind_are_kept_whole_and_give_the_same_losses(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = KINDS[name]
    path, batches, losses = stop_in_second_update(kind, tmp_path)
    stored = torch.load(path, weights_only=True)
    assert stored["kinds"] == [kind.batch.__name__] * 2
    for values, batch in zip(stored["batches"], batches, strict=True):
        again = kind.batch(**values)
        again.unreadable = [UnreadableVideo(**one) for one in again.unreadable]
        assert_same(vars(again), vars(batch))
    assert any(batch.unreadable for batch in batches)
    capsys.readouterr()
    assert main(["--file", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("  loss ")] == [
        f"  loss {loss:g}" for loss in losses
    ]
    assert said.count("  first module with an output that is not finite: none") == 2


@pytest.mark.parametrize("name", ["step_2_model.pt", "step_9_rank_0.pt", "none.txt"])
def test_other_files_are_refused(
    stopped: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--file", str(stopped.with_name(name))]) == 2
    assert "is not a file nonfinite/step_<N>_rank_<R>.pt of a run" in capsys.readouterr().err


def test_a_file_outside_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nonfinite/step_2_rank_0.pt"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert main(["--file", str(path)]) == 2
    assert f"{tmp_path} is not a run's folder" in capsys.readouterr().err
