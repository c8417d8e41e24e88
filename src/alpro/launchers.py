"""Launchers and schedulers: their environment variables, and their signals to end a run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

# Requests to end soon, by schedulers, launchers and terminals; with SLURM's option --signal usually
# SIGUSR1 or SIGUSR2.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GROUP_SIGNALS = (signal.SIGINT, *STOP_SIGNALS)
"""Signals to the whole process group, which only a run's main process handles."""

_MAX_DIGITS = 9  # of a number of processes


@dataclass(frozen=True, slots=True)
class Launcher:
    """A launcher and its environment variables."""

    name: str
    size: str
    """Variable of the number of processes."""
    rank: str
    """Variable of this process's rank; SageMaker's is a host name."""
    is_shared: bool = False
    """Batch scripts have both as well, with rank 0; only other ranks prove a launcher."""
    lists_hosts: bool = False
    """Its size is a JSON list of hosts with a process each."""

    @property
    def num_processes(self) -> int:
        """Number of processes that the launcher started; 1 without it."""
        if self.lists_hosts:
            return (value_of(self.size) or "").count(",") + 1
        size = number_in(self.size)
        if size is None or (self.is_shared and not number_in(self.rank)):
            return 1
        return size


LAUNCHERS = (
    Launcher("horovodrun", "HOROVOD_SIZE", "HOROVOD_RANK"),
    Launcher("torchrun", "WORLD_SIZE", "RANK"),
    Launcher("mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),  # Open MPI
    Launcher("mpiexec", "PMI_SIZE", "PMI_RANK"),  # MPICH, Intel MPI
    Launcher("mpirun", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),  # MVAPICH
    Launcher("jsrun", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),  # of LSF
    Launcher("srun", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    Launcher("srun", "SLURM_NTASKS", "SLURM_PROCID", is_shared=True),
    Launcher("SageMaker", "SM_HOSTS", "SM_CURRENT_HOST", lists_hosts=True),
)

LAUNCHER_REMEDY = (
    "Start several processes with torchrun --nproc_per_node N, which sets it; for one process, "
    "unset it."
)


def value_of(variable: str) -> str | None:
    """Return an environment variable's value; None if it is unset or empty."""
    return os.environ.get(variable, "").strip() or None


def number_in(variable: str) -> int | None:
    """Return an environment variable's non-negative integer; None for anything else."""
    text = value_of(variable) or ""
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None


def launcher_rank() -> str | None:
    """Return this process's rank as its launcher names it; None for one process."""
    for launcher in LAUNCHERS:
        if launcher.num_processes > 1:
            return value_of(launcher.rank) or "unknown"
    return None


def process_name() -> str:
    """Return this process's rank for messages, " (rank 3)"; empty for one process."""
    rank = launcher_rank()
    return "" if rank is None else f" (rank {rank})"


def report_to_torchrun(text: str) -> None:
    """Write an error for ``torchrun``'s report of the first failed rank."""
    # The format is that of torch.distributed.elastic.multiprocessing.errors.
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": text, "extraInfo": extra}}, file)


@dataclass(slots=True)
class TerminationNotice:
    """Record of the first of `STOP_SIGNALS` received."""

    has_come: bool = False
    name: str = ""


@contextmanager
def noticing_termination(
    when_it_comes: Callable[[], None] | None = None,
) -> Iterator[TerminationNotice]:
    """Context in which `STOP_SIGNALS` are recorded instead of ending the process.

    `when_it_comes` is called at the first one. Ignored signals, as SIGHUP under `nohup`, stay so;
    only a process's main thread receives any.
    """
    notice = TerminationNotice()
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return

    def take(number: int, _frame: FrameType | None) -> None:
        if not notice.has_come:
            notice.name = signal.Signals(number).name
            if when_it_comes is not None:
                when_it_comes()
        notice.has_come = True

    # Replace the handlers, and restore them at the end.
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    noticed = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in noticed:
        signal.signal(number, take)
    try:
        yield notice
    finally:
        for number in noticed:
            signal.signal(number, before[number])
