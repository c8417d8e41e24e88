"""A process that hangs ends by itself and tells where; one that gets on is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from alpro.distributed import watchdog
from alpro.distributed.watchdog import Watchdog

ROOT = Path(__file__).parents[2]
TIMEOUT = 60  # seconds, so that a test ends if a watchdog sleeps

HANG = """
import ctypes, sys, threading
from alpro.distributed import watchdog
watchdog._GRACE_SECONDS = watchdog._WAITING_GRACE_SECONDS = 0.0

def stays_here():
    {hang}

dog = watchdog.Watchdog(0.2)
dog.waits_for_others = {waits}
stays_here()
"""


def hang(how: str, *, waits: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HANG.format(hang=how, waits=waits)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("waits", [False, True])
def test_a_hanging_process_prints_its_stack_and_ends(tmp_path: Path, waits: bool) -> None:
    """The report of ``torchrun`` is for the one that the others wait for."""
    told = tmp_path / "error.json"
    environment = {"RANK": "3", "WORLD_SIZE": "4", "TORCHELASTIC_ERROR_FILE": str(told)}
    ended = hang("threading.Event().wait()", waits=waits, **environment)
    assert ended.returncode == 1
    remark = "waits" if waits else "does not wait"
    message = f"error (rank 3): no progress for 0.2 s (hang_timeout); it {remark} for other"
    assert message in ended.stderr
    assert "in stays_here" in ended.stderr
    assert told.exists() != waits
    assert waits or message in json.loads(told.read_text())["message"]["message"]


def test_a_process_that_holds_pythons_lock_ends_too() -> None:
    """Functions of a PyDLL run with the lock; no other thread of Python can."""
    ended = hang("ctypes.PyDLL(None).sleep(600)")
    assert ended.returncode == 1
    assert "in stays_here" in ended.stderr


class Clock:
    """Time that passes when told; knows how often the watchdog has looked at it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._looks = threading.Semaphore(0)

    def monotonic(self) -> float:
        if threading.current_thread().name == "watchdog":
            self._looks.release()
        return self.now

    def wait_for_looks(self, count: int = 2) -> None:
        for _ in range(count):
            assert self._looks.acquire(timeout=TIMEOUT)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    fake = SimpleNamespace(monotonic=made.monotonic, sleep=time.sleep)
    monkeypatch.setattr(watchdog, "time", fake)
    monkeypatch.setattr(watchdog, "_LONGEST_PAUSE", 0.001)
    return made


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the process would have been ended, each time that it would have been."""
    found: list[float] = []
    monkeypatch.setattr(Watchdog, "_end_process", lambda _: found.append(watchdog.time.monotonic()))
    return found


def test_progress_keeps_a_process_alive(clock: Clock, ends: list[float]) -> None:
    dog = Watchdog(1000.0)
    for _ in range(5):
        clock.now += 900.0
        clock.wait_for_looks()
        dog.heartbeat()
    assert ends == []
    clock.now += 1001.0
    clock.wait_for_looks()
    dog.close()
    assert set(ends) == {5501.0}


def test_a_closed_watchdog_does_not_watch(clock: Clock, ends: list[float]) -> None:
    dog = Watchdog(1000.0)
    dog.close()
    clock.now += 5000.0
    assert ends == []
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
