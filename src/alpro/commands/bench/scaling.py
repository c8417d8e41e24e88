"""Time of updates with one process and several: ``bench scaling --config CONFIG [--KEY VALUE]``.

Retrieval is trained on made-up batches with one process and with several, under each engine, in
one run. The table has the time of an update and the share of it that goes into communication.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from alpro.commands.bench.updates import UpdateTiming, read_measured
from alpro.commands.cli import positive
from alpro.commands.gallery.results import markdown_table
from alpro.errors import RunError
from alpro.installation import has_package

HEADER = (
    *("engine", "processes", "ms an update (lowest to highest round)"),
    *("as a multiple of one process", "pairs a second, as a multiple", "communication"),
)


class Job(NamedTuple):
    """One way to start."""

    engine: str
    num_processes: int

    def command(self) -> list[str]:
        """Command line that launches a module."""
        size = str(self.num_processes)
        here = Path(sys.executable).parent
        if self.engine == "horovod":
            return [str(here / "horovodrun"), "-np", size, sys.executable, "-m"]
        if self.engine == "torch":
            return [str(here / "torchrun"), "--nproc_per_node", size, "-m"]
        return [sys.executable, "-m"]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the benchmark."""
    parser.description = (
        "Time updates of retrieval training by one process and by several, with equal batches per"
        " process. Further flags change keys of the config."
    )
    parser.add_argument("--config", required=True, help="JSON of a retrieval experiment")
    parser.add_argument("--processes", type=positive, default=2, help="how many (default 2)")
    parser.add_argument("--updates", type=positive, default=20, help="in a round (default 20)")
    parser.add_argument(
        "--rounds", type=positive, default=3, help="each runs all jobs once, in turn (default 3)"
    )


def run(flags: argparse.Namespace, keys: Sequence[str]) -> None:
    """Run all jobs in turn and print the table.

    Args:
        flags: those of :func:`add_flags`.
        keys: further flags, for the config.
    """
    # One process as the base, several with each installed engine.
    engines = ["torch"] if not has_package("horovod") else ["torch", "horovod"]
    several = [Job(engine, flags.processes) for engine in engines]
    arguments = ["--config", flags.config, *keys]
    timings: dict[Job, list[UpdateTiming]] = {}
    for number in range(flags.rounds):
        for job in [Job("single", 1), *several]:
            print(f"round {number + 1}: {job.engine}, {job.num_processes}", file=sys.stderr)
            timings.setdefault(job, []).append(run_job(job, arguments, num_updates=flags.updates))
    print(scaling_table(timings))


def run_job(job: Job, keys: Sequence[str], *, num_updates: int) -> UpdateTiming:
    """Run one job of ``alpro.commands.bench.updates``, with one thread for each process.

    Raises:
        RunError: if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "measured.json"
        done = subprocess.run(
            [*job.command(), "alpro.commands.bench.updates", str(path), str(num_updates), *keys],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            check=False,
        )
        if done.returncode:
            raise RunError(f"{' '.join(done.args)} failed:\n{done.stdout}{done.stderr}")
        return read_measured(path)


def scaling_table(timings: dict[Job, list[UpdateTiming]]) -> str:
    """Markdown: one row for each job, compared with the first."""
    times = {job: [median(one.seconds) for one in rounds] for job, rounds in timings.items()}
    (base, first), *_ = timings.items()
    rows = []
    for job, rounds in timings.items():
        slower = median(times[job]) / median(times[base])
        low, middle, high = (1000 * pick(times[job]) for pick in (min, median, max))
        share = mean(one.communication for one in rounds)
        rows.append(
            (
                *(job.engine, str(job.num_processes), f"{middle:.1f} ({low:.1f} to {high:.1f})"),
                *(f"{slower:.2f}", f"{job.num_processes / slower:.2f}", f"{100 * share:.1f} %"),
            )
        )
    note = (
        f"{first[0].num_parameters:,} trainable parameters, {first[0].num_pairs} pairs per process "
        "and update, one thread per process."
    )
    return f"{markdown_table(HEADER, rows)}\n\n{note}"
