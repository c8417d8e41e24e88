"""A small experiment, and for each number of processes a run of it that nothing has disturbed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.distributed.jobs import TORCH
from tests.factories import TinyExperiment
from tests.faults.forked import Ended, run_forked
from tests.faults.points import Fault
from tests.training.toys import assert_same_run

NUM_UPDATES = 6
CHANGES: dict[str, Any] = {
    # 6 updates of 2 batches, a validation and a restore file every 2
    **{"train_batch_size": 2, "gradient_accumulation_steps": 2, "num_train_epochs": 3},
    **{"num_valid": 3, "min_valid_steps": 1, "save_steps_ratio": 0.34, "test_datasets": []},
}


@dataclass
class Runs:
    """Runs of one experiment with one number of processes."""

    root: Path
    size: int
    whole: Path = field(init=False)
    """Folder of the undisturbed run."""

    def __post_init__(self) -> None:
        self.experiment = TinyExperiment(self.root, num_train=8 * self.size)
        ended = self.run("whole")
        assert [one.code for one in ended] == [0] * self.size, said_by(ended)
        self.whole = self.root / "whole"

    def run(
        self, name: str, *faults: Fault, flags: tuple[str, ...] = (), backend: str = TORCH
    ) -> list[Ended]:
        """Run, or continue, the run of a name."""
        arguments = self.experiment.arguments(*flags, output=name, **CHANGES)
        folder = self.folder_of_starts(name)
        return run_forked(arguments, *faults, folder=folder, size=self.size, backend=backend)

    def folder_of_starts(self, name: str) -> Path:
        """What the processes of a run tell of themselves."""
        return self.root / "starts" / name

    def continue_to_the_end(self, name: str) -> str:
        """Run what was disturbed once more; it must end as if it never was.

        Returns:
            What rank 0 said.
        """
        ended = self.run(name)
        assert [one.code for one in ended] == [0] * self.size, said_by(ended)
        assert_same_run(self.whole, self.root / name)
        assert files_of(self.root / name) == files_of(self.whole)
        return ended[0].said


def said_by(ended: list[Ended]) -> str:
    """What all processes of a job said."""
    return "\n".join(f"rank {rank}: {one.code}\n{one.said}" for rank, one in enumerate(ended))


def files_of(root: Path) -> set[str]:
    """Names of a run's files, but for TensorBoard's, of which each start has one."""
    paths = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {path for path in paths if "tfevents" not in path}


class AllRuns:
    """Runs for each number of processes; those that nothing disturbs are made once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[int, Runs] = {}

    def of(self, size: int) -> Runs:
        """Those with a number of processes."""
        if size not in self._made:
            self._made[size] = Runs(self._root / str(size), size)
        return self._made[size]


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory: pytest.TempPathFactory) -> AllRuns:
    return AllRuns(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def runs(made_runs: AllRuns, _leave_no_state_behind: None) -> AllRuns:
    assert torch.get_num_threads() == 1  # more of them do not survive a fork
    return made_runs
