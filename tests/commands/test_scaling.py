from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alpro.commands.bench import updates as bench_updates
from alpro.commands.bench.command import main
from alpro.commands.bench.scaling import Job, run_job, scaling_table
from alpro.commands.bench.updates import UpdateTiming, read_measured
from alpro.program import run_script
from tests.factories import TinyExperiment


def measured(*seconds: float, communication: float) -> UpdateTiming:
    return UpdateTiming(list(seconds), communication, num_parameters=1_000, num_pairs=4)


def test_scaling_table_matches_a_hand_computed_one() -> None:
    table = scaling_table(
        {
            Job("single", 1): [measured(0.1, 0.2, 0.9, communication=0.0)],
            Job("torch", 2): [
                measured(0.25, communication=0.1),
                measured(0.4, communication=0.3),
                measured(0.2, communication=0.2),
            ],
        }
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:4]]
    assert rows == [
        ["single", "1", "200.0 (200.0 to 200.0)", "1.00", "1.00", "0.0 %"],
        ["torch", "2", "250.0 (200.0 to 400.0)", "1.25", "1.60", "20.0 %"],
    ]
    assert table.endswith(
        "1,000 trainable parameters, 4 pairs per process and update, one thread per process."
    )


def test_a_job_of_one_process_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = TinyExperiment(tmp_path / "experiment")
    config = experiment.arguments(output="run")[:2]
    path = tmp_path / "measured.json"
    monkeypatch.setattr(sys, "argv", ["bench_updates.py", str(path), "4", *config])
    run_script(bench_updates.main)
    found = read_measured(path)
    assert len(found.seconds) == 4
    assert min(found.seconds) > 0
    assert found.communication == 0
    assert found.num_pairs == 3
    assert not (tmp_path / "run").exists()


def test_a_failed_job_reports_its_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none.json"
    assert main(["scaling", "--rounds", "1", "--config", str(missing)]) == 1
    assert f"{missing}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "start"),
    [
        (Job("single", 1), ["python", "-m"]),
        (Job("torch", 3), ["torchrun", "--nproc_per_node", "3", "-m"]),
        (Job("horovod", 2), ["horovodrun", "-np", "2", "python", "-m"]),
    ],
)
def test_jobs_are_launched_by_the_launcher_of_their_engine(job: Job, start: list[str]) -> None:
    found = [Path(word).name.rstrip("0123456789.") for word in job.command()]
    assert found == [Path(word).name.rstrip("0123456789.") for word in start]


@pytest.mark.slow
def test_two_processes_under_torchrun_are_measured(tmp_path: Path) -> None:
    experiment = TinyExperiment(tmp_path / "experiment")
    config = experiment.arguments(output="run")[:2]
    found = run_job(Job("torch", 2), config, num_updates=2)
    assert 0 < found.communication < 1
