"""Launchers and schedulers: variables that they set, and signals with which they end a run."""

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

# By which schedulers, launchers and terminals ask a run to end soon; SLURM sends what its option
# --signal says, which is SIGUSR1 or SIGUSR2 by custom.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
GROUP_SIGNALS = (signal.SIGINT, *STOP_SIGNALS)
"""Signals that the whole process group gets, and only a run's main process shall act on."""

_MAX_DIGITS = 9  # of a number of processes


@dataclass(frozen=True, slots=True)
class Launcher:
    """A launcher and what it sets."""

    name: str
    size: str
    """Variable: the number of processes."""
    rank: str
    """Variable: this process's number, from 0; SageMaker's is a name."""
    is_shared: bool = False
    """Batch scripts have both, too, with rank 0; only another rank is a sign of a launcher."""
    lists_hosts: bool = False
    """Its size is a JSON list of the hosts, with a process on each."""

    @property
    def num_processes(self) -> int:
        """The number of processes that the launcher has started, 1 where it has not."""
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
    """Return an environment variable's value; empty is not set: a template was not filled in."""
    return os.environ.get(variable, "").strip() or None


def number_in(variable: str) -> int | None:
    """Return a variable's whole number, 0 or above; None where it has none."""
    text = value_of(variable) or ""
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None


def process_name() -> str:
    """Return this process's place among several, as the launcher gives it: " (rank 3)"."""
    for launcher in LAUNCHERS:
        if launcher.num_processes > 1:
            return f" (rank {value_of(launcher.rank) or 'unknown'})"
    return ""


def report_to_torchrun(text: str) -> None:
    """Leave word for the report in which ``torchrun`` names the first rank that failed.

    Source: ``torch.distributed.elastic.multiprocessing.errors``, whose file format this is.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        extra = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError), open(path, "w", encoding="utf-8") as file:
            json.dump({"message": {"message": text, "extraInfo": extra}}, file)


class TerminationNotice:
    """Whether one of `STOP_SIGNALS` has come."""

    def __init__(self, when_it_comes: Callable[[], None] | None = None) -> None:
        self.has_come = False
        self.name = ""
        """Of the first that has come."""
        self._when_it_comes = when_it_comes

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if not self.has_come:
            self.name = signal.Signals(number).name
            if self._when_it_comes is not None:
                self._when_it_comes()
        self.has_come = True


@contextmanager
def noticing_termination(
    when_it_comes: Callable[[], None] | None = None,
) -> Iterator[TerminationNotice]:
    """Context in which `STOP_SIGNALS` do not end the process but are noted.

    More of them change nothing: a launcher passes on what its whole process group has got already.
    What the process ignores, as SIGHUP under `nohup`, it goes on to ignore. Only a process's main
    thread can receive signals; others notice nothing.

    Args:
        when_it_comes: called at the first.
    """
    notice = TerminationNotice(when_it_comes)
    if threading.current_thread() is not threading.main_thread():
        yield notice
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    noticed = [number for number, handler in before.items() if handler != signal.SIG_IGN]
    for number in noticed:
        signal.signal(number, notice._take)  # noqa: SLF001
    try:
        yield notice
    finally:
        for number in noticed:
            signal.signal(number, before[number])
