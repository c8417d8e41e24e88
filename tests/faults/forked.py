"""Runs in forked processes: a start takes no time, since PyTorch is already imported."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.distributed.jobs import free_port, launcher_variables
from tests.faults.points import Fault
from tests.faults.runner import run_with_faults

DEADLINE = 120  # seconds after which a process that should have ended is killed
PATIENCE = 15  # seconds that the others may take after one has failed


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code, or minus the signal's number."""
    said: str
    """On standard output and standard error."""
    seconds: float


def run_forked(
    arguments: Sequence[str], *faults: Fault, folder: Path, size: int = 1
) -> list[Ended]:
    """Run a retrieval run as processes that torchrun could have started; in rank order."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def work(rank: int) -> None:
        if size > 1:
            os.environ |= launcher_variables(rank, size, port=port)
        run_with_faults(arguments, faults, folder=folder)

    children = [_fork(partial(work, rank), folder / f"said{rank}.txt") for rank in range(size)]
    return _wait(children, started=started, folder=folder)


def _fork(work: Callable[[], None], said: Path) -> int:
    """Start a process that does some work and tells its end by its exit code."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(children: Sequence[int], *, started: float, folder: Path) -> list[Ended]:
    """Wait as launchers do: where one has failed, the others are told to end, then made to."""
    ended: dict[int, Ended] = {}
    failed: float | None = None
    while len(ended) < len(children):
        now = time.monotonic()
        late = now > started + DEADLINE or (failed is not None and now > failed + PATIENCE)
        for rank, process in enumerate(children):
            if rank in ended:
                continue
            if late:
                os.kill(process, signal.SIGKILL)
            found, status = os.waitpid(process, 0 if late else os.WNOHANG)
            if found:
                said = (folder / f"said{rank}.txt").read_text()
                ended[rank] = Ended(os.waitstatus_to_exitcode(status), said, now - started)
        if failed is None and any(one.code for one in ended.values()):
            failed = now
            for rank in range(len(children)):
                if rank not in ended:
                    os.kill(children[rank], signal.SIGTERM)
        time.sleep(0.01)
    return [ended[rank] for rank in range(len(children))]
