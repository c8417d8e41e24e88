"""Kills a small run at many moments, restarts the same command, and compares what is left.

    python -m tests.faults.harness [--engine single|torch|horovod] [--processes N] [--kills 20]
        [--seed 0] [--points] [--folder DIR]

Each kill has a run of its own: it is disturbed once, then the same command runs to the end, and
weights, restore file and metrics must be those of a run that nothing has disturbed, bit for bit.
On SIGTERM it must have saved the update in hand and end in order; of a kill the launcher's exit
code must tell. Prints a table; the exit code is 1 if any run ends otherwise.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.factories import TinyExperiment
from tests.faults.conftest import files_of
from tests.faults.launching import ENGINES, Job
from tests.faults.moments import (
    NUM_UPDATES,
    SAVE_STEPS,
    Moment,
    Outcome,
    draw_moments,
    problems,
)
from tests.faults.points import Fault
from tests.training.toys import assert_same, metric_lines

CHANGES: dict[str, Any] = {
    # 4 samples in an update of each process, 40 updates, a validation every 10, saved every 4
    **{"train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 8},
    **{"num_valid": 4, "min_valid_steps": 1, "save_steps_ratio": SAVE_STEPS / NUM_UPDATES},
}
UPDATES_PER_EPOCH = NUM_UPDATES // CHANGES["num_train_epochs"]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
POLL = 0.002  # seconds
COLUMNS = (*("moment", "signal", "to", "in update", "went on after", "exit", "ended in", "result"),)
SAME = "same"


class Harness:
    """One experiment, its undisturbed run, and disturbed ones."""

    def __init__(self, root: Path, *, engine: str, size: int) -> None:
        num_train = 4 * size * UPDATES_PER_EPOCH
        self._experiment = TinyExperiment(root, num_train=num_train)
        self._engine = engine
        self._size = size
        self._span = 0.0

    def run_undisturbed(self) -> float:
        """The run that all others are compared with; returns its seconds."""
        job = self._start("whole", 1)
        self._wait_for_update(job, 1)
        begun = job.seconds()
        self._wait_for_update(job, NUM_UPDATES)
        self._span = job.seconds() - begun
        code = job.wait()
        if code or job.updates() != list(range(1, NUM_UPDATES + 1)):
            raise RuntimeError(f"the undisturbed run ended with {code}:\n{job.said()}")
        return job.seconds()

    def disturb(self, name: str, moment: Moment) -> list[str]:
        """A row of the table: a run disturbed at a moment and continued to its end."""
        signalled = None
        job = self._start(name, 1, *moment.fault())
        if not moment.point:
            self._wait_for_update(job, moment.time)
            time.sleep(self._span / NUM_UPDATES * moment.delay)
            signalled = time.time() if self._signal(job, moment) else None
        code = job.wait()
        struck = job.struck() if moment.point else signalled
        ended = f"{time.time() - struck:.1f} s" if struck else "-"
        left = job.left_running()
        again = self._start(name, 2)
        code_again = again.wait()
        went_on = again.updates()
        outcome = Outcome(
            engine=self._engine,
            size=self._size,
            struck=struck is not None,
            code=code,
            ends=job.ends(),
            in_hand=job.in_hand(),
            reached=max(job.updates(), default=0),
            went_on=went_on[0] - 1 if went_on else NUM_UPDATES,
        )
        found = problems(moment, outcome)
        if left:
            found.append(f"{len(left)} processes left running")
        if code_again:
            found.append(f"restarted: exit {code_again}: {_last_line(again.said())}")
        elif difference := self._difference(name):
            found.append(difference)
        return [
            str(moment),
            f"SIG{moment.action.upper()}",
            moment.whom(),
            str(outcome.reached),
            str(outcome.went_on if went_on else "the end"),
            str(code),
            ended,
            "; ".join(found) or SAME,
        ]

    def _start(self, name: str, start: int, *faults: Fault) -> Job:
        arguments = self._experiment.arguments(output=name, **CHANGES)
        folder = self._experiment.root / f"starts/{name}.{start}"
        return Job(arguments, *faults, engine=self._engine, size=self._size, folder=folder)

    def _wait_for_update(self, job: Job, step: int) -> None:
        while step not in job.updates() and not job.has_ended():
            time.sleep(POLL)

    def _signal(self, job: Job, moment: Moment) -> bool:
        """Send the signal; returns whether all whom it is for were there."""
        if job.has_ended():
            return False
        ranks = range(self._size) if moment.rank is None else [moment.rank]
        processes = [job.process_of(rank) for rank in ranks]
        for process in [job.launcher] if moment.is_for_launcher else processes:
            try:
                os.kill(process, SIGNALS[moment.action])
            except ProcessLookupError:  # it has ended already
                return False
        return True

    def _difference(self, name: str) -> str:
        """What a run has left otherwise than the undisturbed one, empty if nothing."""
        whole, run = (self._experiment.root / n for n in ("whole", name))
        if others := files_of(whole) ^ files_of(run):
            return f"other files: {', '.join(sorted(others))}"
        for path in (whole / "restore.pt", *whole.glob("ckpt/*.pt")):
            file = path.relative_to(whole)
            try:
                assert_same(*(torch.load(root / file, weights_only=True) for root in (whole, run)))
            except AssertionError:
                return f"{file} DIFFERS"
        if metric_lines(whole) != metric_lines(run):
            return "log/metrics.jsonl DIFFERS"
        results = [sorted(root.glob("results_*/*/results.json")) for root in (whole, run)]
        if [p.read_text() for p in results[0]] != [p.read_text() for p in results[1]]:
            return "results.json DIFFERS"
        return ""


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][:160]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under :data:`COLUMNS`, as Markdown."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    lines = [COLUMNS, ["-" * width for width in widths], *rows]
    shown = [" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(f"| {line} |" for line in shown)


def main() -> None:
    """Disturb runs as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=ENGINES, default="single")
    parser.add_argument("--processes", type=int, default=0, help="default: 1 or 2, by the engine")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", action="store_true", help="every named point once, first")
    parser.add_argument("--folder", type=Path, help="where the runs stay; default: nowhere")
    chosen = parser.parse_args()
    size = chosen.processes or (1 if chosen.engine == "single" else 2)
    with tempfile.TemporaryDirectory() as temporary:
        harness = Harness(chosen.folder or Path(temporary), engine=chosen.engine, size=size)
        seconds = harness.run_undisturbed()
        sys.stderr.write(f"undisturbed: {seconds:.1f} s\n")
        rows = []
        moments = draw_moments(chosen.kills, size=size, seed=chosen.seed, points=chosen.points)
        for number, moment in enumerate(moments):
            rows.append(harness.disturb(f"run{number}", moment))
            sys.stderr.write(f"{number + 1}: {'; '.join(rows[-1])}\n")
    bad = sum(row[-1] != SAME for row in rows)
    job = f"Engine {chosen.engine}, {size} {'process' if size == 1 else 'processes'}"
    same = f"{len(rows) - bad} of {len(rows)} runs ended as they should"
    sys.stdout.write(f"{job}, seed {chosen.seed}: {same}.\n\n{table(rows)}\n")
    sys.exit(int(bad > 0))


if __name__ == "__main__":
    main()
