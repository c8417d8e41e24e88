"""Jobs of real launchers: start, wait, and what is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.distributed.jobs import free_port
from tests.faults.points import STRUCK, Fault, write_faults

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
DEADLINE = 300  # seconds after which a job that should have ended is killed
GRACE = 30  # seconds that a job's last processes may take to go
MARK = "FAULTS_JOB"  # environment variable by which a job's processes are known
LAUNCHERS = (
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "HOROVOD_RANK", "HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE"),
)
ENGINES = ("single", "torch", "horovod")


def launch_command(engine: str, *, size: int, restarts: int = 0) -> list[str]:
    """What starts Python in several processes, up to Python's own arguments.

    Args:
        engine: one of :data:`ENGINES`.
        size: number of processes.
        restarts: how often ``torchrun`` starts them again by itself after a failure.
    """
    if restarts:
        place = ["--standalone", "--nproc_per_node", str(size), "--max_restarts", str(restarts)]
        return [str(PROGRAMS / "torchrun"), *place]
    if engine == "horovod":
        return [str(PROGRAMS / "horovodrun"), "-np", str(size), sys.executable]
    if engine == "torch":
        port = free_port()
        place = ["--nnodes", "1", "--nproc_per_node", str(size), "--master_port", str(port)]
        return [sys.executable, "-m", "torch.distributed.run", *place]
    return [sys.executable]


class Job:
    """One start of a retrieval run by a launcher."""

    def __init__(
        self,
        arguments: Sequence[str],
        *faults: Fault,
        engine: str,
        size: int,
        folder: Path,
        restarts: int = 0,
    ) -> None:
        """Start.

        Args:
            arguments: of the entry script.
            faults: what happens to the processes.
            engine: one of :data:`ENGINES`.
            size: number of processes.
            folder: for this start alone; gets what the job says and how far it comes.
            restarts: how often ``torchrun`` starts the processes again by itself after a failure.
        """
        self._folder = folder
        self._mark = uuid.uuid4().hex
        self._started = time.monotonic()
        write_faults(folder / "faults.json", faults)
        self._said = folder / "said.txt"
        environment = {name: v for name, v in os.environ.items() if name not in LAUNCHERS}
        with self._said.open("w") as said:
            self._process = subprocess.Popen(
                [
                    *launch_command(engine, size=size, restarts=restarts),
                    *("-m", "tests.faults.runner", str(folder), *arguments),
                ],
                cwd=ROOT,
                env={
                    **environment,
                    **{"OMP_NUM_THREADS": "1", MARK: self._mark},
                },
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def launcher(self) -> int:
        """Number of the launcher's process, for one process that process's."""
        return self._process.pid

    def process_of(self, rank: int) -> int:
        """Number of the process of a rank that has started."""
        return int((self._folder / f"pid{rank}").read_text())

    def updates(self) -> list[int]:
        """Updates that were begun on rank 0."""
        path = self._folder / "updates0"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def ends(self) -> dict[int, int]:
        """Exit codes of the ranks that have ended by themselves."""
        return self._numbers("ended")

    def in_hand(self) -> dict[int, int]:
        """Updates that ranks had in hand when SIGTERM came to them."""
        return self._numbers("terminated")

    def _numbers(self, name: str) -> dict[int, int]:
        paths = self._folder.glob(f"{name}[0-9]*")
        return {int(path.name.removeprefix(name)): int(path.read_text()) for path in paths}

    def struck(self) -> float | None:
        """When a fault happened, as ``time.time()`` tells it."""
        path = self._folder / STRUCK
        return float(path.read_text()) if path.exists() else None

    def seconds_since_struck(self) -> float:
        """Since a fault has happened, which it must have."""
        struck = self.struck()
        assert struck is not None, self.said()
        return time.time() - struck

    def has_ended(self) -> bool:
        """Whether the launcher has ended."""
        return self._process.poll() is not None

    def wait(self) -> int:
        """Wait for the end; returns the launcher's exit code.

        Raises:
            TimeoutError: if there was none in time; nothing is left running.
        """
        try:
            return self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired as error:
            for process in self.running():
                with suppress(ProcessLookupError):
                    os.kill(process, 9)
            self._process.wait()
            raise TimeoutError(f"no end within {DEADLINE} s; said:\n{self.said()}") from error

    def left_running(self) -> list[int]:
        """Processes of the job that do not go within :data:`GRACE` seconds; they are killed."""
        until = time.monotonic() + GRACE
        while (left := self.running()) and time.monotonic() < until:
            time.sleep(0.1)
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, 9)
        return left

    def running(self) -> list[int]:
        """Processes of the job that are running now, whatever started them."""
        mark = f"{MARK}={self._mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended, or is another user's
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def said(self) -> str:
        """Standard output and standard error of all processes."""
        return self._said.read_text(errors="replace")
