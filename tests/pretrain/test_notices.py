"""Warnings of pretraining: keys without effect, a teacher that is never confident."""

from __future__ import annotations

from typing import Any

import pytest

from tests.pretraining_factories import PretrainExperiment
from tests.tasks.conftest import Run

UNSURE = "mpm_confident is 0: the prompter reaches entity_threshold 1 for none of the validation"


def said_by(run: Run, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    run(arguments)
    return capsys.readouterr().err


def test_keys_without_effect_are_warned_of(
    experiment: PretrainExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    dry = ("--dry_run", "1")
    assert "no effect" not in said_by(run, experiment.pretraining(*dry), capsys)
    off: dict[str, Any] = {"use_mpm": 0, "use_itm": 0}
    said = said_by(run, experiment.pretraining(*dry, **off, itm_start_ratio=0.5), capsys)
    assert said.count("has no effect") == 3
    assert "teacher_weights_path has no effect: use_mpm is 0" in said
    assert "entity_file_path has no effect: use_mpm is 0" in said
    assert "itm_start_ratio has no effect: use_itm is 0" in said
    none: dict[str, Any] = {"teacher_weights_path": None, "entity_file_path": None}
    assert "no effect" not in said_by(run, experiment.pretraining(*dry, **off, **none), capsys)


def test_a_prompter_that_is_never_confident_is_warned_of_once(
    experiment: PretrainExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--entity_threshold", "1")
    said = said_by(run, experiment.pretraining(*flags, num_train_epochs=1), capsys)
    assert said.count(UNSURE) == 1
    assert said.index(UNSURE) < said.index("update 0: ")
    assert "(chance is 1/num_entities = 0.2)" in said
    assert "none of the batch's pairs" in said_by(
        run, experiment.pretraining(*flags, "--dry_run", "1"), capsys
    )
    assert "mpm_confident is 0" not in said_by(run, experiment.pretraining(output="sure"), capsys)


def test_a_threshold_that_chance_reaches_is_warned_of(
    experiment: PretrainExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "entity_threshold 0.2 is not above chance, 1/num_entities = 0.2: a mere guess"
    for threshold, is_warned in (("0.2", True), ("0.21", False)):
        arguments = experiment.pretraining("--dry_run", "1", "--entity_threshold", threshold)
        assert (warning in said_by(run, arguments, capsys)) == is_warned


def test_a_run_of_very_few_updates_is_warned_of(
    experiment: PretrainExperiment, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "only 1 update: lower train_batch_size or gradient_accumulation_steps, or raise"
    few: dict[str, Any] = {"gradient_accumulation_steps": 1000}
    assert warning in said_by(run, experiment.pretraining("--dry_run", "1", **few), capsys)
    flags = ("--dry_run", "1", "--debug", "1")
    assert "lower train_batch_size" not in said_by(
        run, experiment.pretraining(*flags, **few), capsys
    )
