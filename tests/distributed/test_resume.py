"""Jobs of several processes that stop and go on: with as many processes bit for bit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from alpro.distributed.engine import Engine
from tests.distributed.jobs import both_engines, on_processes
from tests.distributed.scripts import run_commands
from tests.factories import TinyExperiment
from tests.pretraining_factories import PretrainExperiment
from tests.training.toys import assert_same_run, metric_lines


@dataclass(frozen=True)
class Stop:
    """SIGTERM comes to one of the processes, and all of them stop."""

    rank: int
    at_read: int
    """Number of the training video that the process reads when it comes."""


def run(
    engine: Engine, script: str, arguments: list[str], stop: Stop | None = None
) -> Counter[str]:
    """How often this process has read each training video in a run of a script."""
    at_read = stop.at_read if stop and stop.rank == engine.rank else None
    return run_commands(engine, [(script, arguments)], stop_at_read=at_read)


def experiment_of(script: str, root: Path) -> TinyExperiment:
    if script == "retrieval":
        return TinyExperiment(root, num_train=11)
    return PretrainExperiment(root, num_train=11, num_val=5)


@both_engines
@pytest.mark.parametrize(
    ("size", "script", "accumulation"), [(2, "pretraining", 2), (3, "retrieval", 1)]
)
def test_a_stopped_job_continues_bit_for_bit(
    tmp_path: Path, backend: str, size: int, script: str, accumulation: int
) -> None:
    """Epochs end in uneven batches, and dropout depends on the state of each rank's generator."""
    experiment = experiment_of(script, tmp_path)
    changes: dict[str, Any] = {
        **{"train_batch_size": 2, "gradient_accumulation_steps": accumulation},
        **{"num_train_epochs": 3, "num_valid": 3},
    }
    whole, parts = (experiment.arguments(output=name, **changes) for name in ("whole", "parts"))
    on_processes(size, run, script, whole, backend=backend)
    root = experiment.root
    on_processes(size, run, script, parts, Stop(rank=size - 1, at_read=4), backend=backend)
    stopped = torch.load(root / "parts/restore.pt", weights_only=True)["position"]
    on_processes(size, run, script, parts, backend=backend)
    assert_same_run(root / "whole", root / "parts")
    state = torch.load(root / "whole/restore.pt", weights_only=True)
    last_step = state["position"]["step"]
    assert 0 < stopped["step"] < last_step
    assert state["position"]["read"] == [[size, last_step * accumulation]]
    generators = [rank["random"]["cpu"] for rank in state["ranks"]]
    assert len({generator.numpy().tobytes() for generator in generators}) == size
    log = (root / "parts/log/log.txt").read_text()
    assert f"SIGTERM came: saved after update {stopped['step']} of {last_step}" in log


@both_engines
def test_a_job_goes_on_with_another_number_of_processes(tmp_path: Path, backend: str) -> None:
    """Of 24 videos 4 processes read 8, then 2 processes 4, then 3 processes the other 12."""
    experiment = TinyExperiment(tmp_path, num_train=24)
    arguments = experiment.arguments(
        train_batch_size=1, num_train_epochs=1, num_valid=1, test_datasets=[]
    )
    parts = ((4, Stop(rank=2, at_read=2)), (2, Stop(rank=0, at_read=2)), (3, None))
    reads: Counter[str] = Counter()
    for size, stop in parts:
        found = on_processes(size, run, "retrieval", arguments, stop, backend=backend)
        reads += sum(found, Counter())
    assert reads == {f"train{number}": 1 for number in range(24)}
    log = (tmp_path / "run/log/log.txt").read_text()
    assert (
        "the run goes on with 2 processes instead of 4 processes: at the same place in the data, "
        "but in another order"
    ) in log
    assert "update 2 of 6 has become 4 of 12" in log
    assert "with 3 processes instead of 2 processes" in log
    assert "update 6 of 12 has become 4 of 8" in log
    steps = [line["step"] for line in metric_lines(tmp_path / "run") if line["split"] == "train"]
    assert steps == [1, 2, 5, 6, 5, 6, 7, 8]
    position = torch.load(tmp_path / "run/restore.pt", weights_only=True)["position"]
    assert position["read"] == [[4, 2], [2, 2], [3, 4]]


@both_engines
def test_one_process_goes_on_where_several_stopped(tmp_path: Path, backend: str) -> None:
    experiment = TinyExperiment(tmp_path, num_train=8)
    arguments = experiment.arguments(train_batch_size=2, test_datasets=[])
    stop = Stop(rank=1, at_read=2)
    several = on_processes(2, run, "retrieval", arguments, stop, backend=backend)
    one = on_processes(1, run, "retrieval", arguments)
    assert sum([*several, *one], Counter()) == {f"train{number}": 2 for number in range(8)}
    assert "with 1 process instead of 2 processes" in (tmp_path / "run/log/log.txt").read_text()
