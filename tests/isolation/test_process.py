from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets.decoding import VideoReadError
from alpro.isolation import worker as isolated
from alpro.isolation.process import CallCutOffError, IsolatedProcess
from alpro.isolation.worker import SharedMemory
from tests.datasets import misbehaving

ROOT = Path(__file__).parents[2]
_MEGABYTES = 128
_LOADER = """
import os, sys
from alpro.isolation.process import IsolatedProcess
from alpro.datasets.dataloader import make_loader

class Pids:
    process = IsolatedProcess()

    def __getitem__(self, _):
        return self.process.call(os.getpid)

loader = make_loader(Pids(), batches=[[0]] * 9, collate=sum, num_workers=1, pin_memory=False)
print(next(iter(loader)), flush=True)
sys.stdin.read()
"""
_PLAIN = """
import os, sys
from alpro.isolation.process import IsolatedProcess
from tests.datasets.misbehaving import hang
process = IsolatedProcess()
print(process.call(os.getpid), flush=True)
if sys.argv[1:] == ["hang"]:
    process.call(hang)
sys.stdin.read()
"""


@pytest.fixture
def process() -> Iterator[IsolatedProcess]:
    process = IsolatedProcess(seconds=60, megabytes=_MEGABYTES)
    yield process
    process.close()


def _ends(pid: int) -> Callable[[], bool]:
    """Make, while the process lives, what waits for its end."""
    number = os.pidfd_open(pid)

    def wait() -> bool:
        poll = select.poll()
        poll.register(number, select.POLLIN)
        has_ended = bool(poll.poll(60_000))
        os.close(number)
        return has_ended

    return wait


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1, None)},
        np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        np.arange(24).reshape(4, 6)[:, ::2],
        np.zeros((0, 3), np.uint8),
        np.ones(9 << 20, np.uint8),  # more than the memory at the start
        b"video" * (1 << 21),
        b"",
    ],
    ids=["objects", "array", "slice", "empty", "large", "bytes", "no bytes"],
)
def test_values_travel_both_ways(process: IsolatedProcess, value: Any) -> None:
    for _ in range(2):
        there_and_back: Any
        there_and_back, same = process.call(misbehaving.twice, value)
        assert there_and_back is same
        assert type(there_and_back) is type(value)
        np.testing.assert_array_equal(there_and_back, value)
    if isinstance(value, np.ndarray):
        assert there_and_back.dtype == value.dtype
        before = value.copy()
        there_and_back[...] = 7  # an array of its own
        np.testing.assert_array_equal(value, before)


def test_the_process_stays_and_imports_nothing_heavy(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    assert pid != os.getpid()
    assert "torch" not in process.call(misbehaving.loaded_modules)
    assert process.call(os.getpid) == pid
    ends = _ends(pid)
    process.close()
    assert ends()


def test_a_process_is_prepared_before_its_first_call_without_limits(tmp_path: Path) -> None:
    done = tmp_path / "done"
    process = IsolatedProcess(seconds=0.1, prepare=partial(misbehaving.prepare_slowly, done))
    with pytest.raises(CallCutOffError, match="longer than 0.1"):
        process.call(misbehaving.hang)
    assert done.exists()
    process = IsolatedProcess(megabytes=32, prepare=misbehaving.prepare_largely)
    assert process.call(misbehaving.is_prepared)
    with pytest.raises(CallCutOffError, match="memory"):
        process.call(misbehaving.grow)
    process.close()
    process = IsolatedProcess(prepare=misbehaving.unsendable_error)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no way"):
            process.call(os.getpid)


def test_exceptions_of_a_call_arrive(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    with pytest.raises(VideoReadError, match="no frames") as caught:
        process.call(misbehaving.read_error, "no frames")
    assert str(caught.value) == "no frames"
    assert "in read_error" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="UnsendableError: no way"):
        process.call(misbehaving.unsendable_error)
    with pytest.raises(TypeError, match="pickle"):
        process.call(misbehaving.unsendable_result)
    assert process.call(os.getpid) == pid


@pytest.mark.parametrize("function", [misbehaving.hang, misbehaving.chatter])
def test_a_call_that_takes_too_long_is_cut_off(function: Callable[[], None]) -> None:
    process = IsolatedProcess(seconds=60)
    pid = process.call(os.getpid)
    process.seconds = 0.3
    with pytest.raises(CallCutOffError, match=r"^took longer than 0.3 seconds$"):
        process.call(function)
    process.seconds = 60
    assert process.call(os.getpid) != pid
    process.close()


@pytest.mark.parametrize("function", [misbehaving.grow, misbehaving.grow_in_disguise])
def test_a_call_that_takes_too_much_memory_is_cut_off(
    process: IsolatedProcess, function: Callable[[], int]
) -> None:
    pid = process.call(os.getpid)
    with pytest.raises(CallCutOffError, match=f"^took more than {_MEGABYTES} megabytes of memory$"):
        process.call(function)
    assert process.call(os.getpid) != pid


@pytest.mark.parametrize(
    ("function", "arguments", "reason"),
    [
        (misbehaving.abort, (), r"by SIGABRT: what\(\): of no use"),
        (misbehaving.leave, (3,), "with exit code 3"),
        (os._exit, (0,), "with exit code 0"),
    ],
)
def test_the_end_of_a_process_is_reported(
    process: IsolatedProcess, function: Callable[..., None], arguments: tuple[int], reason: str
) -> None:
    with pytest.raises(CallCutOffError, match=f"^its process ended {reason}$"):
        process.call(function, *arguments)
    assert process.call(misbehaving.twice, 1) == [1, 1]


def test_a_call_is_not_cut_off_for_earlier_calls(process: IsolatedProcess) -> None:
    pids = {process.call(misbehaving.abort_unless_first) for _ in range(3)}
    assert len(pids) == 3


def test_a_process_that_dies_between_calls_is_replaced(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    ends = _ends(pid)
    os.kill(pid, signal.SIGKILL)
    assert ends()
    assert process.call(os.getpid) != pid


def test_signals_to_the_whole_group_are_the_owners(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
        assert process.call(os.getpid) == pid


def test_an_interrupted_call_is_not_answered_to_the_next(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    with pytest.raises(KeyboardInterrupt):
        process.call(misbehaving.interrupt_owner)
    assert process.call(os.getpid) != pid


def test_prints_stay_away_from_the_console(
    process: IsolatedProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    process.call(misbehaving.print_much)
    assert capfd.readouterr() == ("", "")


def test_no_files_are_handed_on(process: IsolatedProcess, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        names = process.call(misbehaving.open_files)
    kinds = {name.split(":")[0] for name in names}
    assert kinds == {"/dev/null", "pipe", "socket", "/memfd"}


def test_no_files_are_left_open() -> None:
    before = misbehaving.open_files()
    process = IsolatedProcess(seconds=60)
    for _ in range(2):
        process.call(os.getpid)
        with pytest.raises(CallCutOffError):
            process.call(misbehaving.abort)
    process.close()
    assert misbehaving.open_files() == before


def test_copies_have_processes_of_their_own(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    copy = pickle.loads(pickle.dumps(process))
    assert (copy.seconds, copy.megabytes) == (process.seconds, process.megabytes)
    assert copy.call(os.getpid) != pid
    copy.close()
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def call_twice() -> None:
        answers.put([process.call(os.getpid) for _ in range(2)])
        process.close()

    forked = context.Process(target=call_twice)
    forked.start()
    first, second = answers.get()
    forked.join()
    assert forked.exitcode == 0
    assert first == second != pid
    assert process.call(os.getpid) == pid


@pytest.mark.parametrize(
    ("code", "arguments", "is_killed"),
    [(_PLAIN, ["hang"], True), (_PLAIN, [], False), (_LOADER, [], True), (_LOADER, [], False)],
    ids=["killed in a call", "exit", "killed, in a worker", "exit, in a worker"],
)
def test_an_isolated_process_ends_with_its_owner(
    code: str, arguments: list[str], is_killed: bool
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    ends = _ends(int(owner.stdout.readline()))
    if is_killed:
        owner.kill()
    _, errors = owner.communicate(timeout=120)
    assert ends()
    if not is_killed:
        assert (owner.returncode, errors) == (0, "")


def test_a_process_that_does_not_start_is_no_fault_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match="did not start: its process ended with exit code 1"):
        IsolatedProcess().call(os.getpid)


def test_an_aborted_process_takes_no_more_calls(process: IsolatedProcess) -> None:
    process.call(os.getpid)
    process.abort()
    with pytest.raises(CallCutOffError):
        process.call(os.getpid)
    with pytest.raises(CallCutOffError, match="stopped"):
        process.call(os.getpid)


def test_memory_of_large_messages_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    number = os.memfd_create("test")
    file = os.fdopen(number, "r+b", buffering=0)
    writer = SharedMemory(file, is_new=True)
    reader = SharedMemory(os.fdopen(os.dup(number), "r+b", buffering=0), is_new=False)
    frames = np.ones(5 << 20, np.uint8)
    for kept in (1 << 30, 0):
        monkeypatch.setattr(isolated, "_KEPT_CAPACITY", kept)
        (read,) = reader.get(writer.put((frames,)))
        np.testing.assert_array_equal(read, frames)
        assert bool(os.fstat(number).st_blocks) == bool(kept)
    for memory in (writer, reader):
        memory.close()
