from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from src.training.output import OutputFolder
from src.training.reporting import Reporter, Throughput, log_to_file, start_logging
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
            reporter.update(step, {**VALUES, "loss": float(step)}, throughput=Throughput())
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
        reporter.update(1, VALUES, throughput=Throughput())
        assert list(reporter.progress([1, 2], "nothing", "it")) == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_the_bar_shows_numbers_from_the_first_update(
    output: OutputFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("src.training.reporting.MIN_REDRAW_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Reporter(output, total_steps=500, log_interval=500) as reporter:
        reporter.start(step=0)
        throughput = Throughput()
        for step in (1, 2):
            throughput.add(clips=8, waited=0.0)
            reporter.update(step, {**VALUES, "loss": float(step)}, throughput=throughput)
    shown = capsys.readouterr().err
    assert "1/500" in shown
    assert "loss 1.000, lr 1.0e-01" in shown
    assert "loss 2.000" in shown
    assert " clips/s, data wait 0%" in shown
    assert metric_lines(output.root) == []


def test_a_progress_bar_knows_its_end_and_its_unit(
    output: OutputFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    reporter = Reporter(output, total_steps=1, log_interval=1)
    assert list(reporter.progress([1, 2, 3], "counting", "number")) == [1, 2, 3]
    shown = capsys.readouterr().err
    assert "counting:   0%" in shown
    assert "0/3 [00:00<?, ?number/s]" in shown


def test_throughput_is_that_since_the_last_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0, 4.0, 5.0])
    monkeypatch.setattr("src.training.reporting.time.perf_counter", lambda: next(clock))
    throughput = Throughput()
    throughput.add(clips=8, waited=1.0)
    assert throughput.read() == {"clips_per_second": 4.0, "data_wait": 0.5}
    throughput.add(clips=8, waited=0.0)
    assert throughput.read() == {"clips_per_second": 4.0, "data_wait": 0.25}
    throughput.restart()
    assert throughput.read() == {"clips_per_second": 0.0, "data_wait": 0.0}


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_of_updates_are_on_the_console_where_there_is_no_bar(
    output: OutputFolder,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    start_logging(rank=0)
    log_to_file(output.log / "log.txt", rank=0)
    with Reporter(output, total_steps=3, log_interval=2) as reporter:
        reporter.start(step=0)
        for step in (1, 2, 3):
            reporter.update(step, {**VALUES, "itc_loss": 1.25}, throughput=Throughput())
        logging.getLogger("a").info("said meanwhile")
    lines = (output.log / "log.txt").read_text().splitlines()
    assert len(lines) == 3
    assert "update 2 of 3: loss 1.5, lr 0.1, grad_norm 2, itc_loss 1.25, " in lines[0]
    assert lines[0].endswith(" clips/s, data wait 0%")
    assert "update 3 of 3" in lines[1]
    console = capsys.readouterr().err
    assert ("update 2 of 3: loss 1.5" in console) == (not terminal)
    assert ("training: " in console) == terminal
    assert "a: said meanwhile\n" in console


def test_the_log_file_has_what_was_said_before_there_was_one(tmp_path: Path) -> None:
    start_logging(rank=0)
    logging.getLogger("a").info("early")
    log_to_file(tmp_path / "run/log.txt", rank=0)
    logging.getLogger("a").info("late")
    lines = (tmp_path / "run/log.txt").read_text().splitlines()
    assert [line.split("a: ")[1] for line in lines] == ["early", "late"]


def test_the_log_file_is_rank_0s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in (1, 0):
        start_logging(rank=rank)
        log_to_file(tmp_path / "log.txt", rank=rank)
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
