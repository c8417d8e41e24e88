"""What launchers make of a failing rank: an exit code, that rank's error, nothing left running."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.factories import TinyExperiment
from tests.faults.conftest import CHANGES
from tests.faults.launching import Job
from tests.faults.points import Fault

SOON = 90  # seconds in which a job must end: about 1, and much more on a busy machine
ENGINES = [
    "torch",
    pytest.param(
        "horovod",
        marks=pytest.mark.skipif(
            find_spec("horovod") is None and os.environ.get("ALPRO_REQUIRE_HOROVOD") != "1",
            reason="Horovod is not installed; env/install_pkg.sh builds it",
        ),
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failing_rank_ends_the_job(tmp_path: Path, engine: str) -> None:
    experiment = TinyExperiment(tmp_path / "experiment", num_train=16)
    changes: dict[str, Any] = {**CHANGES, "n_workers": 1}  # loading processes must go, too
    fault = Fault(point="forward", action="raise", rank=1, time=5)
    job = Job(
        experiment.arguments(**changes), fault, engine=engine, size=2, folder=tmp_path / "start"
    )
    code = job.wait()
    seconds = job.seconds_since_struck()
    said = job.said()
    assert job.left_running() == [], said
    assert code not in (0, None)
    assert seconds < SOON
    assert "PeerLostError" not in said
    # Launchers have the last word: torchrun repeats the error in it.
    last = "\n".join(said.splitlines()[-40:])
    assert "FaultError: made to fail at the point 'forward'" in last, said
    assert "(rank 1)" in last, said
