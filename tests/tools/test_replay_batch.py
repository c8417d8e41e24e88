from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from src.build.finetuning import finetune
from src.build.launch import launched
from src.build.retrieval import RetrievalRecipe
from src.configs.loading import load_config
from src.configs.schema import RetrievalConfig
from src.errors import RunError
from src.tasks.retrieval_task import RetrievalTask
from src.tools.replay_batch import main
from tests.factories import MadeUpDecoder, TinyExperiment

FORWARD = RetrievalTask.forward


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """What a run has left that a NaN has stopped in its second update, which has two batches."""
    experiment = TinyExperiment(tmp_path / "experiment")
    arguments = experiment.arguments(
        output="run", gradient_accumulation_steps=2, train_batch_size=1
    )
    calls = iter(range(100))

    def forward(task: RetrievalTask, batch: Any) -> dict[str, Tensor]:
        losses = FORWARD(task, batch)
        if next(calls) == 3:
            losses["loss"] = losses["loss"] * torch.nan
        return losses

    with (
        mock.patch("src.build.data.make_decoder", return_value=MadeUpDecoder()),
        mock.patch.object(RetrievalTask, "forward", forward),
        launched(load_config(RetrievalConfig, arguments)) as engine,
        pytest.raises(RunError, match="update 2: the loss is not finite"),
    ):
        finetune(RetrievalRecipe(load_config(RetrievalConfig, arguments), engine=engine))
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


def test_where_numbers_go_wrong_is_told(
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


@pytest.mark.parametrize("name", ["step_2_model.pt", "step_9_rank_0.pt", "none.txt"])
def test_other_files_are_refused(
    stopped: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--file", str(stopped.with_name(name))]) == 2
    assert "is no file of the kind nonfinite/step_<N>_rank_<R>.pt" in capsys.readouterr().err


def test_a_file_outside_a_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nonfinite/step_2_rank_0.pt"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert main(["--file", str(path)]) == 2
    assert f"{tmp_path} is not the folder of a run" in capsys.readouterr().err
