from __future__ import annotations

import errno
import io
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from alpro import program
from alpro.errors import USER_ERROR_EXIT_CODE, InputError, PeerLostError, RunError, TerminatedError
from alpro.program import interruptible, run_script
from alpro.training.reporting import log_to_file, start_logging

HOROVOD = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "4"}
TORCH = {"RANK": "3", "WORLD_SIZE": "4"}

Fail = Callable[[Exception | KeyboardInterrupt], int]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which ``torchrun`` looks for what its first failed process has said."""
    path = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    return path


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Exit code of a script that fails, without a grace."""
    monkeypatch.setattr(program, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(program, "_SECONDS_FOR_RANK_0", 0.0)

    def exit_code_of(error: Exception | KeyboardInterrupt) -> int:
        def main() -> None:
            raise error

        with pytest.raises(SystemExit) as end:
            run_script(main)
        assert isinstance(end.value.code, int)
        return end.value.code

    return exit_code_of


def start_as(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("interrupt", "line"),
    [
        (KeyboardInterrupt(), "interrupted\n"),
        (KeyboardInterrupt("go on like this"), "interrupted; go on like this\n"),
    ],
)
def test_an_interruption_ends_with_one_line(
    interrupt: KeyboardInterrupt, line: str, fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(interrupt) == 130
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, ""),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"}, ""),
        ({"RANK": "0", "WORLD_SIZE": "1"}, ""),
        ({"WORLD_SIZE": "2"}, " (rank unknown)"),
        (HOROVOD, " (rank 3)"),
        (TORCH, " (rank 3)"),
    ],
)
@pytest.mark.parametrize(("kind", "code"), [(InputError, 2), (RunError, 1)])
def test_what_the_user_must_know_is_one_message_that_names_the_process(
    environment: dict[str, str],
    place: str,
    kind: type[Exception],
    code: int,
    fail: Fail,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_as(environment, monkeypatch)
    assert fail(kind("num_frm: many is no number.")) == code
    assert capsys.readouterr().err == f"error{place}: num_frm: many is no number.\n"


def test_a_python_without_docstrings_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.flags", SimpleNamespace(optimize=2))
    with pytest.raises(SystemExit) as end:
        run_script(lambda: None)
    assert end.value.code == USER_ERROR_EXIT_CODE
    assert "unset PYTHONOPTIMIZE.\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [InputError("no such file"), RunError("the disk is full")])
def test_torchrun_is_told(
    error: Exception, told: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_as(TORCH, monkeypatch)
    fail(error)
    report = json.loads(told.read_text())["message"]
    assert report["message"].startswith(f"error (rank 3): {error}")
    assert int(report["extraInfo"]["timestamp"]) > 0


def test_torchrun_reads_the_report(told: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its agent does, for the summary that it ends with."""
    elastic = pytest.importorskip("torch.distributed.elastic.multiprocessing.errors")
    start_as(TORCH, monkeypatch)
    fail(RunError("the disk is full"))
    failure = elastic.ProcessFailure(local_rank=1, pid=9, exitcode=1, error_file=str(told))
    assert "the disk is full" in failure.message["message"]
    assert failure.timestamp > 0


def test_a_program_error_keeps_its_traceback_and_names_the_process(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_as(TORCH, monkeypatch)

    def main() -> None:
        raise ZeroDivisionError("made so")

    with pytest.raises(ZeroDivisionError) as caught:
        run_script(main)
    assert caught.value.__notes__ == ["(rank 3)"]
    assert "ZeroDivisionError: made so" in json.loads(told.read_text())["message"]["message"]


def test_a_program_error_of_one_process_stays_as_it_is() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run_script(main)
    assert not hasattr(caught.value, "__notes__")


def test_who_lost_a_peer_lets_that_one_speak_first(
    told: Path,
    fail: Fail,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_as(TORCH, monkeypatch)
    said_before: list[str] = []
    monkeypatch.setattr(program, "GRACE_SECONDS", 12.0)
    monkeypatch.setattr(
        program.time, "sleep", lambda seconds: said_before.append(f"{seconds}{told.exists()}")
    )
    assert fail(PeerLostError("connection closed")) == 1
    assert said_before == ["12.0False"]
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "PeerLostError: connection closed" in said
    assert "(rank 3)" in said


@pytest.mark.parametrize("error", [InputError("no file"), RunError("NaN")])
@pytest.mark.parametrize(
    ("environment", "waits"),
    [({}, False), ({"RANK": "0", "WORLD_SIZE": "2"}, False), (TORCH, True)],
)
def test_rank_0_is_the_first_to_report_an_error(
    environment: dict[str, str],
    waits: bool,
    error: Exception,
    told: Path,
    fail: Fail,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_as(environment, monkeypatch)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        assert not told.exists()
        assert capsys.readouterr().err == ""
        waited.append(seconds)

    monkeypatch.setattr(program, "_SECONDS_FOR_RANK_0", 7.0)
    monkeypatch.setattr(program.time, "sleep", sleep)
    fail(error)
    assert waited == [7.0] * waits
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "beginning"), [({}, "stopped: "), (HOROVOD, "stopped (rank 3): ")]
)
def test_sigterm_ends_a_run_well(
    environment: dict[str, str],
    beginning: str,
    told: Path,
    fail: Fail,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start_as(environment, monkeypatch)
    assert fail(TerminatedError("update 3 is saved")) == 0
    assert capsys.readouterr().err == f"{beginning}update 3 is saved\n"
    assert not told.exists()


def test_sigterm_is_told_by_one_process(fail: Fail, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(TerminatedError()) == 0
    assert capsys.readouterr().err == ""


class FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_exit_code_survives_a_full_disk(
    tmp_path: Path, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard error and the report for ``torchrun`` may be files on it."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path))  # a folder cannot be written to
    monkeypatch.setattr("sys.stderr", FullDisk())
    assert fail(RunError("the disk is full")) == 1


def test_a_script_that_ends_says_nothing(capsys: pytest.CaptureFixture[str], told: Path) -> None:
    run_script(lambda: None)
    assert capsys.readouterr() == ("", "")
    assert not told.exists()


@pytest.mark.parametrize("error", [InputError("no such file"), RunError("full"), KeyError("bug")])
def test_the_log_file_gets_the_last_words(error: Exception, tmp_path: Path) -> None:
    def main() -> None:
        start_logging(rank=0)
        log_to_file(tmp_path / "log.txt", rank=0)
        raise error

    with pytest.raises((SystemExit, KeyError)):
        run_script(main)
    assert str(error) in (tmp_path / "log.txt").read_text()


@pytest.fixture
def ended_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    ended: list[str] = []
    monkeypatch.setattr(program, "_end_at_once", lambda: ended.append("at once"))
    handler = signal.getsignal(signal.SIGINT)
    yield ended
    signal.signal(signal.SIGINT, handler)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_twice() -> None:
    with interruptible():
        try:
            interrupt()
        finally:
            interrupt()  # while it tidies up


def test_an_interrupt_that_a_launcher_passes_on_counts_once(ended_at_once: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    interrupt()
    assert ended_at_once == []


def test_a_second_interrupt_ends_the_process_at_once(
    ended_at_once: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_ONE_INTERRUPT_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert ended_at_once == ["at once"]
    interrupt()  # while Python ends
    assert ended_at_once == ["at once"] * 2


def test_interrupts_that_are_ignored_go_on_to_be(ended_at_once: list[str]) -> None:
    """Shells start jobs in the background so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert ended_at_once == []


def test_python_keeps_its_own_handler(ended_at_once: list[str]) -> None:
    with interruptible():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert ended_at_once == []


def test_the_traceback_of_a_refusal_goes_to_the_log_file_only(
    tmp_path: Path, fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    start_logging(rank=0)
    log_to_file(tmp_path / "log.txt", rank=0)
    assert fail(PermissionError(errno.EACCES, "Permission denied", "a")) == 2
    assert capsys.readouterr().err == "error: a: Permission denied\n"
    assert "Traceback" in (tmp_path / "log.txt").read_text()
