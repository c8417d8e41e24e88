"""What isolated processes come to grief over, and what is left of it: nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alpro.isolation.process import CallCutOffError, IsolatedProcess
from tests.datasets import misbehaving

_MEGABYTES = 32


@pytest.fixture
def process() -> Iterator[IsolatedProcess]:
    process = IsolatedProcess(seconds=60, megabytes=_MEGABYTES)
    yield process
    process.close()


def _is_known(pid: int) -> bool:
    """Whether there is such a process, or a zombie of it."""
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("how", ["reading", "library", "symbols", "thread"])
def test_lack_of_memory_has_many_names(process: IsolatedProcess, how: str) -> None:
    with pytest.raises(CallCutOffError, match=f"more than {_MEGABYTES} megabytes of memory"):
        process.call(misbehaving.lack_memory, how)


def test_the_size_of_a_message_comes_on_top_of_the_limit(process: IsolatedProcess) -> None:
    video, more = bytes(24 << 20), 20 << 20
    for sent in (b"", video, b""):
        assert process.call(misbehaving.grow_by, sent, more) == len(sent) + more
    for sent in (b"", video):
        with pytest.raises(CallCutOffError, match="memory"):
            process.call(misbehaving.grow_by, sent, 2 * more)


@pytest.mark.parametrize(
    ("act", "error"),
    [(misbehaving.interrupt, KeyboardInterrupt), (misbehaving.divide_by_zero, ZeroDivisionError)],
)
def test_an_answer_that_cannot_be_read_leaves_nothing(
    process: IsolatedProcess, act: Callable[[], None], error: type[BaseException]
) -> None:
    before = misbehaving.open_files()
    pid = process.call(os.getpid)
    with pytest.raises(error):
        process.call(misbehaving.read_as, act)
    assert misbehaving.open_files() == before
    assert not _is_known(pid)
    assert process.call(os.getpid) != pid


def test_memory_that_is_looked_at_hinders_no_end(process: IsolatedProcess) -> None:
    pid = process.call(os.getpid)
    assert process._child is not None
    with memoryview(process._child._memory._memory):
        process.close()
        assert not _is_known(pid)


def test_a_killed_call_is_tried_once_more(process: IsolatedProcess, tmp_path: Path) -> None:
    """The kernel, short of memory, may have chosen a process that does no harm."""
    for name in ("in a fresh process", "in a used one"):
        assert process.call(misbehaving.be_killed, tmp_path / name, 1) == 2
    for name in ("in a used one, always", "in a fresh one, always"):
        with pytest.raises(CallCutOffError, match=f"ended by {signal.SIGKILL.name}"):
            process.call(misbehaving.be_killed, tmp_path / name, 9)
        assert (tmp_path / name).read_text() == "xx"
