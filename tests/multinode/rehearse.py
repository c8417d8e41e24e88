"""Rehearse training over two hosts, made of network namespaces on this machine. Needs root.

    python -m tests.multinode.rehearse [--launchers horovodrun torchrun] [--keep DIR]

Every run is started by ``launch`` of ``run_scripts/common.sh``, with 4 processes: on one host, on
two hosts, and with a process that is killed on the way. A table says what happened, and whether the
files left behind are those of the undisturbed run on one host, bit for bit. The exit code is 0 if
all is as it should be. Horovod needs an ssh server on each host (``openssh-server``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tests.multinode.hosts import ssh_is_there, two_hosts, what_is_missing
from tests.multinode.runs import Outcome, Runs, difference

LAUNCHERS = ("horovodrun", "torchrun")
HOSTS = "hosta:2,hostb:2"
# The last rank is on hostb. It reads 2 videos for an update, so this is in update 14 of 24, where
# there is a restore file after every 6th.
KILL: dict[str, int | str] = {"rank": 3, "read": 27, "what": "kill"}
HANG = {**KILL, "what": "hang"}
HANG_TIMEOUT = 10  # seconds
ONE_OR_TWO_HOSTS = (
    *("torchrun", "--nnodes", "1:2", "--nproc_per_node", "2", "--max_restarts", "2"),
    *("--rdzv_backend", "c10d", "--rdzv_endpoint", "hosta:29500"),
)
COLUMNS = (
    *("run", "ranks", "exit codes", "seconds", "after the fault", "left over", "continued after"),
    *("last update", "files"),
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    cells: list[str]
    problems: list[str]


def main() -> None:
    """Run the rehearsal and print its table."""
    parser = argparse.ArgumentParser(description="Rehearse training over two hosts.")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    parser.add_argument("--keep", type=Path, help="leave the runs in this new folder")
    given = parser.parse_args()
    missing = what_is_missing()
    if missing:
        sys.exit("error: this machine lacks " + ", and ".join(missing))
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = []
        for row in rehearse(folder.resolve(), given.launchers):
            sys.stderr.write("  ".join(row.cells) + "\n")
            rows.append(row)
    sys.stdout.write(table([list(COLUMNS), *(row.cells for row in rows)]))
    problems = [problem for row in rows for problem in row.problems]
    sys.exit("\n".join(problems) if problems else 0)


def rehearse(folder: Path, launchers: Collection[str]) -> Iterator[Row]:
    """Run after run, each as a line of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    with two_hosts(folder / "hosts") as hosts:
        runs = Runs(folder, hosts)
        if "horovodrun" in launchers:
            yield from with_horovodrun(runs)
        if "torchrun" in launchers:
            yield from with_torchrun(runs)


def with_horovodrun(runs: Runs) -> Iterator[Row]:
    """One launcher, which reaches the other host by ssh; after a failure it is started again."""
    launcher, _ = runs.hosts
    options: Any = {"LAUNCHER": "horovodrun"}
    one = runs.run("horovodrun_one_host", [launcher], **options)
    yield row("horovodrun, one host", one)
    if not ssh_is_there():
        what = "not tried: no ssh server (apt-get install openssh-server)"
        yield Row(["horovodrun, two hosts", what], [f"horovodrun, two hosts: {what}"])
        return
    options["HOSTS"] = HOSTS
    two = runs.run("horovodrun_two_hosts", [launcher], **options)
    yield row("horovodrun, two hosts", two, reference=one)
    name = "horovodrun_killed"
    killed = runs.run(name, [launcher], fault=KILL, **options)
    yield row("horovodrun, two hosts, rank 3 killed", killed, fails=True)
    again = runs.run(name, [launcher], **options)
    yield row("horovodrun, the same command again", again, reference=one, continues=True)


def with_torchrun(runs: Runs) -> Iterator[Row]:
    """A launcher on each host; they begin again by themselves."""
    one = runs.run("torchrun_one_host", runs.hosts[:1], LAUNCHER="torchrun")
    yield row("torchrun, one host", one)
    options: Any = {"LAUNCHER": "torchrun", "HOSTS": HOSTS}
    two = runs.run("torchrun_two_hosts", runs.hosts, **options)
    yield row("torchrun, two hosts", two, reference=one)
    name = "torchrun_killed"
    killed = runs.run(name, runs.hosts, fault=KILL, **options)
    yield row("torchrun, two hosts, rank 3 killed", killed, fails=True)
    again = runs.run(name, runs.hosts, **options)
    yield row("torchrun, the same command again", again, reference=one, continues=True)
    options["MAX_RESTARTS"] = "2"
    elastic = runs.run("torchrun_elastic", runs.hosts, fault=KILL, **options)
    yield row("torchrun, rank 3 killed, MAX_RESTARTS=2", elastic, reference=one, continues=True)
    fresh = {"overwrite": 1}  # of what earlier runs left, not of what this one did before the fault
    elastic = runs.run("torchrun_fresh", runs.hosts, fault=KILL, changes=fresh, **options)
    yield row("torchrun, the same with --overwrite 1", elastic, reference=one, continues=True)
    alone = runs.run(
        "torchrun_alone",
        runs.hosts,
        fault=HANG,
        cut_off=runs.hosts[1],
        command=ONE_OR_TWO_HOSTS,
        changes={"hang_timeout": HANG_TIMEOUT},
    )
    yield row("torchrun --nnodes 1:2, hostb without power", alone, continues=True)


def row(
    name: str,
    outcome: Outcome,
    *,
    reference: Outcome | None = None,
    fails: bool = False,
    continues: bool = False,
) -> Row:
    """A line of the table, with what is not as it should be.

    Args:
        name: of the run.
        outcome: what it did.
        reference: run that must have left the same files.
        fails: whether the launchers must end with an error.
        continues: whether it must go on from a restore file.
    """
    files = "another order, as the log says" if outcome.order_differs else "-"
    if reference is not None:
        files = difference(outcome, reference)
    as_it_should_be = {
        "exit code": all((code != 0) == fails for code in outcome.exit_codes),
        "left over": not outcome.left_behind,
        "continued": bool(outcome.continued_after) == continues,
        "files": reference is None or files.startswith("same"),
    }
    after_fault = outcome.seconds_after_fault
    return Row(
        [
            name,
            outcome.where() if outcome.places else "-",
            " ".join(map(str, outcome.exit_codes)),
            f"{outcome.seconds:.1f}",
            "-" if after_fault is None else f"{after_fault:.1f}",
            f"{len(outcome.left_behind)} after {outcome.seconds_to_quiet:.1f} s",
            " ".join(map(str, outcome.continued_after)) or "-",
            f"update {outcome.num_updates}",
            files,
        ],
        [
            f"{name}: {what} is not as it should be; see {outcome.log}"
            for what, fine in as_it_should_be.items()
            if not fine
        ],
    )


def table(lines: list[list[str]]) -> str:
    """Cells in columns."""
    widths = [max(map(len, column)) for column in zip_longest(*lines, fillvalue="")]
    padded = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        for line in lines
    ]
    return "\n".join([padded[0], "-" * max(map(len, padded)), *padded[1:]]) + "\n"


if __name__ == "__main__":
    main()
