"""Retrieval training by its real entry script, over made-up videos, with faults at named points.

    [horovodrun -np N | torchrun --nproc_per_node N] python -m tests.faults.runner FOLDER FLAGS...

FOLDER holds ``faults.json``; each process leaves its number, its updates and, unless something else
ends it, its exit code there. Where torchrun starts the processes anew by itself, the faults have
happened.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from alpro.program import run_script
from tasks import run_video_retrieval
from tests.faults.points import Fault, Points, named_points, read_faults

RANK_VARIABLES = ("RANK", "HOROVOD_RANK")


def run_with_faults(arguments: Sequence[str], faults: Sequence[Fault], *, folder: Path) -> None:
    """Run the script as the process that a launcher has started."""
    points = Points(faults, rank=own_rank(), folder=folder)
    with named_points(points), mock.patch("sys.argv", ["run_video_retrieval.py", *arguments]):
        run_script(run_video_retrieval.main)


def own_rank() -> int:
    """This process's number, as the launcher tells it."""
    return next((int(os.environ[name]) for name in RANK_VARIABLES if name in os.environ), 0)


@contextmanager
def noting_end(path: Path) -> Iterator[None]:
    """Context of a whole program whose exit code is noted; last of all, so that it counts."""
    path.unlink(missing_ok=True)  # of an earlier start
    code = 1

    def note() -> None:
        path.write_text(str(code))

    atexit.register(note)  # what is registered first is called last
    try:
        yield
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise


def main() -> None:
    """Run the command line's arguments."""
    folder = Path(sys.argv[1])
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    faults = [] if again else read_faults(folder / "faults.json")
    with noting_end(folder / f"ended{own_rank()}"):
        run_with_faults(sys.argv[2:], faults, folder=folder)


if __name__ == "__main__":
    main()
