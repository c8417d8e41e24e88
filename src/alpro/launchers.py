"""Launchers of several processes, and the variables by which each process knows its place."""

from __future__ import annotations

import os
from dataclasses import dataclass

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
    """Batch scripts have both, too, with rank 0; only another rank tells of a launcher."""
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
