"""Runs in forked processes: a start takes no time, since PyTorch is already imported."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.distributed.jobs import TORCH, launcher
from tests.faults.points import Fault
from tests.faults.runner import run_with_faults

DEADLINE = 300  # seconds after which a process that should have ended is killed
PATIENCE = 60  # seconds that the others may take after one has failed


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code, or minus the signal's number."""
    said: str
    """On standard output and standard error."""
    place: int
    """Among the processes of its job, 0 for the first that ended."""

    @property
    def was_made_to(self) -> bool:
        """Whether it had to be killed, because it took too long."""
        return self.code == -signal.SIGKILL


def run_forked(
    arguments: Sequence[str], *faults: Fault, folder: Path, size: int = 1, backend: str = TORCH
) -> list[Ended]:
    """Run a retrieval run as processes that a launcher could have started; in rank order."""
    folder.mkdir(parents=True, exist_ok=True)
    orders = [os.pipe() for _ in range(size)]

    def work(rank: int) -> None:
        with os.fdopen(orders[rank][0]) as order:
            os.environ |= json.loads(order.readline())
        run_with_faults(arguments, faults, folder=folder)

    # They are forked before a launcher starts threads.
    children = [_fork(partial(work, rank), folder / f"said{rank}.txt") for rank in range(size)]
    alone = nullcontext[list[dict[str, str]]]([{}])
    try:
        with launcher(backend, size, local_size=None) if size > 1 else alone as variables:
            for (reads, writes), told in zip(orders, variables, strict=True):
                os.write(writes, f"{json.dumps(told)}\n".encode())
                os.close(reads)
                os.close(writes)
            return _wait(children, folder=folder)
    except BaseException:  # without a launcher they would wait for ever
        for process in children:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        raise


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


def _wait(children: Sequence[int], *, folder: Path) -> list[Ended]:
    """Wait as launchers do: where one has failed, the others are told to end, then made to."""
    started = time.monotonic()
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
                ended[rank] = Ended(os.waitstatus_to_exitcode(status), said, len(ended))
        if failed is None and any(one.code for one in ended.values()):
            failed = now
            for rank in range(len(children)):
                if rank not in ended:
                    os.kill(children[rank], signal.SIGTERM)
        time.sleep(0.01)
    return [ended[rank] for rank in range(len(children))]
