"""Small training runs that the run scripts start on hosts, and what is seen of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.factories import TinyExperiment
from tests.multinode.hosts import POLL, Host
from tests.multinode.job import FAULT, PLACES
from tests.training.toys import assert_same_run, metric_lines

TIMEOUT = 300  # seconds that a run may take
PATIENCE = 20  # seconds after which what still runs counts as left behind
CONTINUING = re.compile(r"continuing .* after update (\d+)")
CHANGED = "the run goes on with 2 processes instead of 4"
# With 4 processes 3 updates an epoch, 24 in all.
CHANGES: dict[str, Any] = {
    **{"train_batch_size": 2, "num_train_epochs": 8, "num_valid": 3, "min_valid_steps": 1},
    **{"save_steps_ratio": 0.25, "num_threads": 1},
}
# As a run script starts its entry script.
LAUNCH = ["bash", "-c", 'source run_scripts/common.sh; launch "$@"', "bash"]


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    output: Path
    places: list[dict[str, int | str]]
    exit_codes: list[int]
    seconds: float
    seconds_after_fault: float | None
    left_behind: list[str]
    seconds_to_quiet: float
    continued_after: list[int]
    order_differs: bool
    num_updates: int
    log: Path

    def where(self) -> str:
        """Hosts and their ranks when the run was last started."""
        size = int(self.places[-1]["size"])
        ranks_of: dict[str, list[str]] = {}
        for place in sorted(self.places[-size:], key=lambda place: place["rank"]):
            ranks_of.setdefault(str(place["host"]), []).append(str(place["rank"]))
        return ", ".join(f"{host}: {' '.join(ranks)}" for host, ranks in ranks_of.items())


class Runs:
    """Starts runs of one experiment, each in an output folder of its own."""

    def __init__(self, folder: Path, hosts: Sequence[Host]) -> None:
        self.folder = folder
        self.hosts = hosts
        self.experiment = TinyExperiment(folder / "experiment", num_train=24)

    def run(
        self,
        name: str,
        on: Sequence[Host],
        *,
        fault: Mapping[str, int | str] | None = None,
        cut_off: Host | None = None,
        command: Sequence[str] = LAUNCH,
        changes: Mapping[str, Any] | None = None,
        **variables: str,
    ) -> Outcome:
        """Start the same command on some hosts and wait until all have ended.

        Args:
            name: of the output folder; one that is there is continued.
            on: hosts to start the command on.
            fault: what goes wrong, as ``tests.multinode.job`` takes it.
            cut_off: host that goes off at the moment of the fault.
            command: words before those of the job.
            changes: to the config.
            **variables: environment variables for the run scripts.
        """
        folder = self.folder / "notes" / f"{len(list((self.folder / 'notes').glob('*')))} {name}"
        folder.mkdir(parents=True)
        if fault is not None:
            (folder / FAULT).write_text(json.dumps(fault))
        log = folder / "log.txt"
        flags = self.experiment.arguments(output=name, **{**CHANGES, **(changes or {})})
        words = [*command, "-m", "tests.multinode.job", str(folder), *flags]
        started = time.monotonic()
        launchers = {
            host.name: host.start(words, log=log, environment=self._environment(variables))
            for host in on
        }
        seconds_after_fault = _wait(launchers.values(), folder / FAULT if fault else None, cut_off)
        seconds = time.monotonic() - started
        left_behind, seconds_to_quiet = self._wait_for_quiet()
        output = self.experiment.root / name
        lines = (folder / PLACES).read_text().splitlines() if (folder / PLACES).exists() else []
        steps = [int(line["step"]) for line in metric_lines(output)] if output.exists() else []
        return Outcome(
            output=output,
            places=[json.loads(line) for line in lines],
            exit_codes=[launchers[host.name].returncode for host in on if host.is_there],
            seconds=seconds,
            seconds_after_fault=seconds_after_fault,
            left_behind=left_behind,
            seconds_to_quiet=seconds_to_quiet,
            continued_after=sorted({int(n) for n in CONTINUING.findall(log.read_text())}),
            order_differs=CHANGED in log.read_text(),
            num_updates=max(steps, default=0),
            log=log,
        )

    def _environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),  # for what horovodrun remembers
            "ALPRO_VENV": sys.prefix,
            "OMP_NUM_THREADS": "1",
            "NUM_PROCESSES": "4",
            **variables,
        }

    def _wait_for_quiet(self) -> tuple[list[str], float]:
        """What still runs when patience is at its end, and the seconds until nothing did."""
        started = time.monotonic()
        while True:
            left = [f"{host.name}: {line}" for host in self.hosts for line in host.processes()]
            waited = time.monotonic() - started
            if not left or waited > PATIENCE:
                return left, waited
            time.sleep(POLL)


def _wait(
    launchers: Collection[subprocess.Popen[str]], wish: Path | None, cut_off: Host | None
) -> float | None:
    """Wait for launchers to end.

    Args:
        launchers: their commands.
        wish: file that is removed at the moment of the fault.
        cut_off: host that goes off then.

    Returns:
        Seconds from the fault to the end; None without one.

    Raises:
        TimeoutError: if they do not end.
    """
    started = time.monotonic()
    struck = None
    while any(launcher.poll() is None for launcher in launchers):
        if wish is not None and struck is None and not wish.exists():
            struck = time.monotonic()
            if cut_off is not None:
                cut_off.cut_off()
        if time.monotonic() - started > TIMEOUT:
            raise TimeoutError(f"the run has not ended after {TIMEOUT} seconds")
        time.sleep(POLL)
    return None if struck is None else time.monotonic() - struck


def difference(one: Outcome, other: Outcome) -> str:
    """Compare the files of two finished runs: weights, restore files, metrics."""
    try:
        assert_same_run(one.output, other.output)
    except (AssertionError, FileNotFoundError) as error:
        return f"differs: {str(error).splitlines()[0] if str(error) else 'values'}"
    return "same, bit for bit"
