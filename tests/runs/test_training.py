"""Lengths of runs that no one can wait for."""

from pathlib import Path
from typing import Any

import pytest

from alpro.configs.loading import load_config
from alpro.distributed.engine import SingleProcess
from alpro.errors import InputError
from alpro.runs.build_training import build_plan
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.training.objective import TrainingPlan
from tests.factories import CPU, TinyExperiment


def plan_of(folder: Path, *, num_samples: int, **changes: Any) -> TrainingPlan:
    config = load_config(RetrievalConfig, TinyExperiment(folder).arguments(**changes)).config
    engine = SingleProcess(CPU, scale_loss=False)
    return build_plan(config, num_samples=num_samples, engine=engine)


def test_a_run_of_more_updates_than_anyone_can_wait_for_is_refused(tmp_path: Path) -> None:
    changes = {"num_train_epochs": 100_000, "train_batch_size": 1}
    assert plan_of(tmp_path, num_samples=10_000, **changes).num_train_steps == 10**9
    with pytest.raises(InputError, match=r"num_train_epochs: 100000 epochs of 10,001 samples"):
        plan_of(tmp_path, num_samples=10_001, **changes)


def test_an_update_of_many_times_the_run_is_refused(tmp_path: Path) -> None:
    changes = {"num_train_epochs": 2, "train_batch_size": 3}
    plan = plan_of(tmp_path, num_samples=6, gradient_accumulation_steps=4000, **changes)
    assert plan.num_train_steps == 1
    with pytest.raises(InputError, match="_steps: one update of 4,001 batches"):
        plan_of(tmp_path, num_samples=6, gradient_accumulation_steps=4001, **changes)
