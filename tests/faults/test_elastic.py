"""A launcher that starts the processes again by itself: the run goes on where it was."""

from __future__ import annotations

import json

from tests.faults.conftest import CHANGES, AllRuns, files_of
from tests.faults.launching import Job
from tests.faults.points import Fault
from tests.training.toys import assert_same_run


def test_torchrun_restarts_a_killed_job_which_goes_on_in_spite_of_overwrite(runs: AllRuns) -> None:
    pair, name = runs.of(2), "elastic"
    root = pair.root / name
    forgotten = root / "ckpt/model_step_99.pt"  # of an earlier run
    forgotten.parent.mkdir(parents=True)
    forgotten.write_text("old")
    fault = Fault(point="update", action="kill", time=4, rank=1)
    arguments = pair.experiment.arguments("--overwrite", "1", output=name, **CHANGES)
    folder = pair.root / "starts" / name
    job = Job(arguments, fault, engine="torch", size=2, folder=folder, restarts=1)
    code = job.wait()
    said = job.said()
    assert job.left_running() == [], said
    assert code == 0, said
    assert job.updates().count(3) == 2  # restore files are written every 2 updates
    assert job.updates()[-4:] == [3, 4, 5, 6]
    assert said.count("before training") == 1
    log = (root / "log/log.txt").read_text()
    assert log.count(f"continuing {root} after update 2\n") == 1
    assert len(json.loads((root / "log/launchers.json").read_text())["launchers"]) == 1
    assert files_of(root) == files_of(pair.whole)
    assert_same_run(pair.whole, root)
