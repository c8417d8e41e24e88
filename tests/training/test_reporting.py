from __future__ import annotations

import errno
import json
import logging
from contextlib import suppress
from pathlib import Path

import pytest

from alpro.errors import RunError
from alpro.training.reporting import Reporter, Throughput, log_to_file, start_logging
from alpro.training.run_directory import RunDirectory
from tests.training.disks import FULL_DEVICE
from tests.training.toys import metric_lines

VALUES = {"loss": 1.5, "lr": 0.1, "grad_norm": 2.0}


@pytest.fixture
def output(tmp_path: Path) -> RunDirectory:
    (tmp_path / "log").mkdir()
    return RunDirectory(tmp_path, rank=0)


def test_lines_are_written_at_the_interval_and_at_the_end(output: RunDirectory) -> None:
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


@pytest.mark.parametrize(("num_lines", "kept"), [(0, []), (3, [0, 1, 2]), (9, [0, 1, 2, 3])])
def test_a_resumed_run_drops_lines_beyond_its_restore_file(
    output: RunDirectory, num_lines: int, kept: list[int]
) -> None:
    output.metrics.write_text(step_lines(0, 1, 2, 3) + '{"step": 4, "spl')  # cut short by a kill
    with Reporter(output, total_steps=5, log_interval=1) as reporter:
        reporter.start(step=2, num_lines=num_lines)
        reporter.validation(5, {})
    assert [line["step"] for line in metric_lines(output.root)] == [*kept, 5]


def step_lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "split": "train"}) + "\n" for step in steps)


@pytest.mark.parametrize(
    ("start", "purge_step"),
    [
        ({"step": 0}, 0),
        ({"step": 9}, 10),
        ({"step": 20, "last_step_before": 40}, 21),
        ({"step": 80, "last_step_before": 40}, 41),
        ({"step": 0, "last_step_before": 1}, 1),
    ],
)
def test_curves_are_cut_where_the_run_goes_on(
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch, start: dict[str, int], purge_step: int
) -> None:
    cut: list[int] = []

    class Curves:
        def __init__(self, _folder: Path, *, purge_step: int) -> None:
            cut.append(purge_step)

        def close(self) -> None:
            pass

    monkeypatch.setattr("alpro.training.reporting.TensorBoard", Curves)
    with Reporter(output, total_steps=99, log_interval=1) as reporter:
        reporter.start(**start)
    assert cut == [purge_step]


def test_lines_of_two_ways_of_counting_stay(output: RunDirectory) -> None:
    output.metrics.write_text(step_lines(39, 40, 21, 22, 23, 24))
    with Reporter(output, total_steps=25, log_interval=1) as reporter:
        reporter.start(step=22, num_lines=4)
        reporter.update(23, VALUES, throughput=Throughput())
        reporter.flush()
        assert reporter.num_lines == 5
    assert [line["step"] for line in metric_lines(output.root)] == [39, 40, 21, 22, 23]


def test_metrics_on_a_full_disk_end_the_run(output: RunDirectory) -> None:
    with Reporter(output, total_steps=5, log_interval=1) as reporter:
        reporter.start(step=0)
        reporter.update(1, VALUES, throughput=Throughput())
        output.metrics.unlink()
        output.metrics.symlink_to(FULL_DEVICE)
        with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written: No space left"):
            reporter.update(2, VALUES, throughput=Throughput())
        assert reporter.num_lines == 1


def test_other_ranks_report_nothing(tmp_path: Path) -> None:
    with Reporter(RunDirectory(tmp_path, rank=1), total_steps=1, log_interval=1) as reporter:
        reporter.start(step=0)
        reporter.validation(0, {"score": 1.0})
        reporter.update(1, VALUES, throughput=Throughput())
        reporter.flush()
        assert reporter.num_lines == 0
        assert list(reporter.progress([1, 2], "nothing", "it")) == [1, 2]
    assert list(tmp_path.iterdir()) == []


def test_the_bar_shows_numbers_from_the_first_update(
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alpro.training.reporting.MIN_REDRAW_SECONDS", 0.0)
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
    output: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    reporter = Reporter(output, total_steps=1, log_interval=1)
    assert list(reporter.progress([1, 2, 3], "counting", "number")) == [1, 2, 3]
    shown = capsys.readouterr().err
    assert "counting:   0%" in shown
    assert "0/3 [00:00<?, ?number/s]" in shown


def test_throughput_is_that_since_the_last_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 4.0, 4.0, 5.0])
    monkeypatch.setattr("alpro.training.reporting.time.perf_counter", lambda: next(clock))
    throughput = Throughput()
    throughput.add(clips=8, waited=1.0)
    assert throughput.read() == {"clips_per_second": 4.0, "data_wait": 0.5}
    throughput.add(clips=8, waited=0.0)
    assert throughput.read() == {"clips_per_second": 4.0, "data_wait": 0.25}
    throughput.restart()
    assert throughput.read() == {"clips_per_second": 0.0, "data_wait": 0.0}


def test_the_share_of_communication_is_that_since_the_last_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 4.0, 6.0, 8.0])
    monkeypatch.setattr("alpro.training.reporting.time.perf_counter", lambda: next(clock))
    exchanged = iter([10.0, 11.0, 12.0, 13.0])
    throughput = Throughput(lambda: next(exchanged))
    assert throughput.read()["communication"] == (11.0 - 10.0) / (4.0 - 0.0)
    throughput.restart()
    assert throughput.read()["communication"] == (13.0 - 12.0) / (8.0 - 6.0)


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_of_updates_are_on_the_console_where_there_is_no_bar(
    output: RunDirectory,
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


def test_a_log_file_on_a_full_disk_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.txt"
    path.symlink_to(FULL_DEVICE)
    start_logging(rank=0)
    logging.getLogger("a").info("early")
    log_to_file(path, rank=0)
    for number in range(3):
        logging.getLogger("a").info("said %d", number)
    path.unlink()
    logging.getLogger("a").info("there is space again")
    console = capsys.readouterr().err
    assert [line.split(": ", 1)[1] for line in console.splitlines()] == [
        "early",
        f"{path}: cannot be written (No space left on device); lines will be missing there",
        *("said 0", "said 1", "said 2", "there is space again"),
    ]
    assert path.read_text().splitlines()[-1].endswith("a: there is space again")


@pytest.mark.parametrize("where", ["folder", "file"])
def test_a_log_file_that_cannot_be_made_on_a_full_disk_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.mkdir" if where == "folder" else "logging.FileHandler._open", fail)
    start_logging(rank=0)
    with pytest.raises(RunError, match=r"log\.txt: cannot be written: No space left on device"):
        log_to_file(tmp_path / "run/log.txt", rank=0)


def test_a_console_that_cannot_be_written_to_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_logging(rank=0)
    log_to_file(tmp_path / "log.txt", rank=0)
    with FULL_DEVICE.open("w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        logging.getLogger("a").info("said")
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    assert (tmp_path / "log.txt").read_text().endswith("a: said\n")
