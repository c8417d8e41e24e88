"""How a run begins, as its ranks agree on it: afresh, or where an earlier start has left it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import local
from unittest import mock

import pytest

from alpro.configs.loading import load_config
from alpro.distributed.engine import Engine
from alpro.runs.build_training import RunStart, agree_on_start
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.evaluation.ranks import on_ranks
from tests.factories import TinyExperiment


@dataclass
class Job:
    """Ranks with a launcher each, and the folder that each of them sees."""

    experiment: TinyExperiment
    here: local

    def beginning(
        self, *flags: str, launchers: Sequence[str | None], outputs: Sequence[str] = ("run", "run")
    ) -> RunStart:
        """What the ranks agree on, which must be the same on each."""
        arguments = [self.experiment.arguments(*flags, output=output) for output in outputs]
        configs = [load_config(RetrievalConfig, own).config for own in arguments]

        def work(engine: Engine) -> RunStart:
            self.here.launcher = launchers[engine.rank]
            return agree_on_start(configs[engine.rank], engine=engine)

        first, *others = on_ranks(len(launchers), work)
        assert others == [first] * len(others)
        return first


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A job whose folder has a restore file of a run that launcher A has started."""
    (tmp_path / "run/log").mkdir(parents=True)
    (tmp_path / "run/restore.pt").touch()
    (tmp_path / "run/log/launchers.json").write_text(json.dumps({"launchers": ["A"]}))
    here = local()
    name = "alpro.runs.build_training.launcher_on_this_machine"
    with mock.patch(name, side_effect=lambda: here.launcher):
        yield Job(TinyExperiment(tmp_path), here)


OVERWRITE = ("--overwrite", "1")


def test_the_same_launcher_again_goes_on_in_spite_of_overwrite(job: Job) -> None:
    found = job.beginning(*OVERWRITE, launchers=["A", "A"])
    assert found == RunStart(overwrites=False, resumes=True, launchers=("A",))


def test_another_launcher_overwrites_and_replaces_the_former(job: Job) -> None:
    found = job.beginning(*OVERWRITE, launchers=["B", "B"])
    assert found == RunStart(overwrites=True, resumes=False, launchers=("B",))


def test_without_overwrite_another_launcher_goes_on_and_is_added(job: Job) -> None:
    found = job.beginning(launchers=["B", "B"])
    assert found == RunStart(overwrites=False, resumes=True, launchers=("A", "B"))


@pytest.mark.parametrize("size", [1, 2])
def test_without_a_launcher_that_starts_again_overwrite_is_always_meant(
    job: Job, size: int
) -> None:
    found = job.beginning(*OVERWRITE, launchers=[None] * size)
    assert found == RunStart(overwrites=True, resumes=False, launchers=())
    found = job.beginning(launchers=[None] * size)
    assert found == RunStart(overwrites=False, resumes=True, launchers=("A",))


def test_one_launcher_that_was_there_is_enough_whatever_machines_are_lost_or_new(job: Job) -> None:
    stored = job.experiment.root / "run/log/launchers.json"
    stored.write_text(json.dumps({"launchers": ["A", "lost"]}))
    found = job.beginning(*OVERWRITE, launchers=["new", "A"])
    assert found == RunStart(overwrites=False, resumes=True, launchers=("A", "lost", "new"))


def test_a_start_without_a_restore_file_is_repeated_without_overwriting(job: Job) -> None:
    (job.experiment.root / "run/restore.pt").unlink()
    found = job.beginning(*OVERWRITE, launchers=["A", "A"])
    assert found == RunStart(overwrites=False, resumes=False, launchers=("A",))


@pytest.mark.parametrize("flags", [(), OVERWRITE])
def test_a_dry_run_never_resumes(job: Job, flags: tuple[str, ...]) -> None:
    assert not job.beginning(*flags, "--dry_run", "1", launchers=["A", "A"]).resumes


def test_rank_0_decides_where_the_ranks_see_different_folders(job: Job) -> None:
    found = job.beginning(*OVERWRITE, launchers=["A", "A"], outputs=["run", "elsewhere"])
    assert found == RunStart(overwrites=False, resumes=True, launchers=("A",))
    found = job.beginning(*OVERWRITE, launchers=["A", "A"], outputs=["elsewhere", "run"])
    assert found == RunStart(overwrites=True, resumes=False, launchers=("A",))


def test_a_fresh_folder(job: Job) -> None:
    found = job.beginning(launchers=["A", None], outputs=["new", "new"])
    assert found == RunStart(overwrites=False, resumes=False, launchers=("A",))


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_damaged_list_of_launchers_is_none(job: Job, content: bytes) -> None:
    (job.experiment.root / "run/log/launchers.json").write_bytes(content)
    assert job.beginning(*OVERWRITE, launchers=["A", "A"]).overwrites
