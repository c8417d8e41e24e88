from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from src.training.output import OutputFolder
from src.training.reporting import Reporter, Throughput, start_logging
from tests.training.toys import metric_lines

VALUES = {"loss": 1.5, "lr": 0.1, "grad_norm": 2.0}


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    (tmp_path / "log").mkdir()
    return OutputFolder(tmp_path, rank=0)


def test_lines_are_written_at_the_interval_and_at_the_end(output: OutputFolder) -> None:
    with Reporter(output, total_steps=5, log_interval=2) as reporter:
        reporter.start(step=0)
        reporter.validation(0, {"score": 1.0})
        for step in range(1, 6):
            reporter.update(step, {**VALUES, "loss": float(step)}, reading=Throughput())
        reporter.validation(5, {"score": 2.0}, split="test")
    assert metric_lines(output.root) == [
        {"step": 0, "split": "valid", "score": 1.0},
        *({"step": step, "split": "train", **VALUES, "loss": float(step)} for step in (2, 4, 5)),
        {"step": 5, "split": "test", "score": 2.0},
    ]
    assert list(output.log.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(("step", "kept"), [(0, []), (2, [0, 1, 2]), (9, [0, 1, 2, 3])])
def test_a_resumed_run_drops_lines_beyond_its_restore_file(
    output: OutputFolder, step: int, kept: list[int]
) -> None:
    lines = [json.dumps({"step": number, "split": "train"}) for number in range(4)]
    output.metrics.write_text("\n".join([*lines, '{"step": 4, "spl']))  # cut short by a kill
    with Reporter(output, total_steps=5, log_interval=1) as reporter:
        reporter.start(step=step)
        reporter.validation(5, {})
    assert [line["step"] for line in metric_lines(output.root)] == [*kept, 5]


def test_other_ranks_report_nothing(tmp_path: Path) -> None:
    with Reporter(OutputFolder(tmp_path, rank=1), total_steps=1, log_interval=1) as reporter:
        reporter.start(step=0)
        reporter.validation(0, {"score": 1.0})
        reporter.update(1, VALUES, reading=Throughput())
        assert list(reporter.progress([1, 2], "nothing")) == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_the_log_file_is_rank_0s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (1, 0):
        start_logging(rank=rank, log_file=tmp_path / "log.txt")
        logging.getLogger("a").info("information of rank %d", rank)
        logging.getLogger("a").warning("warning of rank %d", rank)
    written = (tmp_path / "log.txt").read_text()
    assert [line.split("a: ")[1] for line in written.splitlines()] == [
        "information of rank 0",
        "warning of rank 0",
    ]
    console = capsys.readouterr().err
    assert "warning of rank 1" in console
    assert "information of rank 1" not in console
