"""Pretraining that goes on without the files that it began with."""

from __future__ import annotations

import pytest

from tests.pretraining_factories import PretrainExperiment
from tests.tasks.conftest import Refuse, Run


def test_a_run_resumes_without_its_teacher(experiment: PretrainExperiment, run: Run) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    before = (experiment.root / "run/log/metrics.jsonl").read_text()
    experiment.teacher.unlink()
    run(experiment.pretraining(num_train_epochs=1))
    assert "already finished" in (experiment.root / "run/log/log.txt").read_text()
    assert (experiment.root / "run/log/metrics.jsonl").read_text() == before


def test_a_teacher_that_is_gone_is_asked_for_where_no_restore_file_has_it(
    experiment: PretrainExperiment, run: Run, refused: Refuse
) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    for path in experiment.root.glob("run/restore*"):
        path.unlink()
    experiment.teacher.unlink()
    assert str(experiment.teacher) in refused(experiment.pretraining(num_train_epochs=1))


@pytest.mark.parametrize("present", [True, False])
def test_images_are_looked_for_where_they_are_now(
    experiment: PretrainExperiment, run: Run, refused: Refuse, present: bool
) -> None:
    run(experiment.pretraining(num_train_epochs=1))
    moved = experiment.root / "moved"
    if present:
        (experiment.root / "images").rename(moved)
    else:
        moved.mkdir()
    flags = [
        word
        for key in ("train_datasets", "val_datasets")
        for word in (f"--{key}.1.img", str(moved))
    ]
    arguments = experiment.pretraining(*flags, num_train_epochs=1)
    if present:
        run(arguments)
        assert "already finished" in (experiment.root / "run/log/log.txt").read_text()
    else:
        assert "none of the 4 images" in refused(arguments)
