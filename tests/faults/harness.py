"""Kills a small run at many moments, restarts the same command, and compares what is left.

    python -m tests.faults.harness [--engine single|torch|horovod] [--processes N] [--kills 20]
        [--seed 0] [--points] [--folder DIR]

Each kill has a run of its own: it is disturbed once, then the same command runs to the end, and
weights, restore file and metrics must be those of a run that nothing has disturbed, bit for bit.
Prints a table; the exit code is 1 if any run ends otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.factories import TinyExperiment
from tests.faults.conftest import files_of
from tests.faults.launching import ENGINES, Job
from tests.faults.points import POINTS, Fault
from tests.training.toys import assert_same, metric_lines

NUM_UPDATES = 40
CHANGES: dict[str, Any] = {
    # 4 samples in an update of each process, 40 updates, a validation every 10, saved every 4
    **{"train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 8},
    **{"num_valid": 4, "min_valid_steps": 1, "save_steps_ratio": 0.1},
}
NUM_TIMES = {
    # How often each rank, or the one that writes, reaches a point at least; updates at no point.
    **dict.fromkeys(("", "update", "step", "stepped"), NUM_UPDATES),
    **dict.fromkeys(("decode", "forward", "backward"), 2 * NUM_UPDATES),
    **dict.fromkeys(("validation", "validated"), 5),
    **dict.fromkeys(("bytes of checkpoint", "written checkpoint", "renamed checkpoint"), 4),
    **dict.fromkeys(("bytes of restore", "written restore", "renamed restore"), 10),
    "linked restore": 9,
}
WRITTEN_POINTS = [point for point in POINTS if point.endswith(("restore", "checkpoint"))]
SHARE_OF_ALL = 0.3  # of the moments that happen to all processes at once
UPDATES_PER_EPOCH = NUM_UPDATES // CHANGES["num_train_epochs"]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}
POLL = 0.002  # seconds
COLUMNS = (
    *("moment", "signal", "to", "in update", "went on after", "exit", "ended in", "result"),
)


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When and how a run is disturbed."""

    action: str
    rank: int | None
    """None for all; of SIGTERM at a time, for the launcher, which passes it on."""
    point: str = ""
    """A named point; empty for a time."""
    time: int = 1
    share: float = 1.0
    delay: float = 0.0
    """Without a point: so many updates after update ``time`` has begun."""

    def __str__(self) -> str:
        if not self.point:
            return f"{self.delay:.2f} updates after the start of {self.time}"
        share = f" {self.share:.0%}" if "bytes" in self.point and self.action == "kill" else ""
        return f"{self.point}{share}, time {self.time}"

    @property
    def is_for_launcher(self) -> bool:
        """Whether the launcher gets the signal."""
        return self.action == "term" and self.rank is None and not self.point

    def whom(self) -> str:
        """Who gets the signal."""
        if self.is_for_launcher:
            return "launcher"
        return "all" if self.rank is None else f"rank {self.rank}"

    def fault(self) -> list[Fault]:
        """The fault of a named point."""
        if not self.point:
            return []
        action = self.action + (" all" if self.rank is None else "")
        # Of a fault that happens to all, the first to reach the point tells the others.
        return [
            Fault(
                point=self.point, action=action, time=self.time, share=self.share, rank=self.rank
            )
        ]


def draw_moments(count: int, *, size: int, seed: int, points: bool) -> Iterator[Moment]:
    """Random moments, half of them at named points.

    Args:
        count: how many.
        size: number of processes.
        seed: of the draws.
        points: begin with a kill at every named point.
    """
    rng = random.Random(seed)
    names = list(POINTS)
    for number in range(count):
        first = points and number < len(names)
        point = names[number] if first else rng.choice([*names, *[""] * len(names)])
        ranks = [0] if point in WRITTEN_POINTS else range(size)
        yield Moment(
            action="kill" if first else rng.choice(("kill", "kill", "kill", "term")),
            rank=None if rng.random() < SHARE_OF_ALL else rng.choice(ranks),
            point=point,
            time=rng.randint(1, NUM_TIMES[point]),
            share=rng.random(),
            delay=rng.random(),
        )


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
        job = self._start(name, 1, *moment.fault())
        if not moment.point:
            self._wait_for_update(job, moment.time)
            time.sleep(self._span / NUM_UPDATES * moment.delay)
            self._signal(job, moment)
        signalled = time.time()
        code = job.wait()
        left = job.left_running()
        struck = job.struck() if moment.point else signalled
        ended = f"{time.time() - struck:.1f} s" if struck else "not struck"
        again = self._start(name, 2)
        code_again = again.wait()
        reached = job.updates()
        went_on = again.updates()
        problems = [f"{len(left)} processes left running"] if left else []
        if code_again:
            problems.append(f"restarted: exit {code_again}: {_last_line(again.said())}")
        elif problem := self._difference(name):
            problems.append(problem)
        return [
            str(moment),
            f"SIG{moment.action.upper()}",
            moment.whom(),
            str(reached[-1] if reached else 0),
            str(went_on[0] - 1 if went_on else "the end"),
            str(code),
            ended,
            "; ".join(problems) or "same",
        ]

    def _start(self, name: str, start: int, *faults: Fault) -> Job:
        arguments = self._experiment.arguments(output=name, **CHANGES)
        folder = self._experiment.root / f"starts/{name}.{start}"
        return Job(arguments, *faults, engine=self._engine, size=self._size, folder=folder)

    def _wait_for_update(self, job: Job, step: int) -> None:
        while step not in job.updates() and not job.has_ended():
            time.sleep(POLL)

    def _signal(self, job: Job, moment: Moment) -> None:
        ranks = range(self._size) if moment.rank is None else [moment.rank]
        processes = [job.process_of(rank) for rank in ranks]
        for process in [job.launcher] if moment.is_for_launcher else processes:
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(process, SIGNALS[moment.action])

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
        sys.stdout.write(f"{chosen.engine}, {size} processes, undisturbed: {seconds:.1f} s\n")
        rows = []
        moments = draw_moments(chosen.kills, size=size, seed=chosen.seed, points=chosen.points)
        for number, moment in enumerate(moments):
            rows.append(harness.disturb(f"run{number}", moment))
            sys.stdout.write(f"{number + 1}: {'; '.join(rows[-1])}\n")
            sys.stdout.flush()
    sys.stdout.write(f"\n{table(rows)}\n")
    bad = sum(row[-1] != "same" for row in rows)
    sys.stdout.write(f"\n{len(rows) - bad} of {len(rows)} runs ended as the undisturbed one\n")
    sys.exit(int(bad > 0))


if __name__ == "__main__":
    main()
