"""The course of a training run, whatever the task."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from alpro.evaluation.eval_mode import with_heartbeat
from alpro.experiment.experiment import Experiment
from alpro.experiment.memory import check_batches, check_model
from alpro.experiment.summary import log_summary
from alpro.experiment.training import (
    build_output,
    build_plan,
    build_reporter,
    build_trainer,
)
from alpro.training.run_directory import APPENDED, WRITTEN_IN_TRAINING, RunDirectory
from alpro.training.seeding import seed_everything
from alpro.training.writable import check_output_folder, check_space


def check_run(experiment: Experiment[Any, Any]) -> None:
    """Check, before any work, that a run can write its output and has all that it reads."""
    config = experiment.config
    check_output_folder(
        Path(config.output_dir),
        patterns=[*WRITTEN_IN_TRAINING, *experiment.result_files()],
        appended=APPENDED,
        tries=not config.dry_run,
    )
    experiment.check_inputs()
    check_model(experiment.build_model, experiment.resolved, device=experiment.engine.device)


def pretrain(experiment: Experiment[Any, Any]) -> None:
    """Train a task's model from beginning to end; finetuning starts from its checkpoints."""
    check_run(experiment)
    train(experiment)


def train(
    experiment: Experiment[Any, Any], *, tested_on: Sequence[str] = ()
) -> tuple[nn.Module, RunDirectory]:
    """Train a task's model; a dry run tries one batch.

    Args:
        experiment: the task, of which :func:`check_run` has approved.
        tested_on: what the model will be tested on, in lines for the log.

    Returns:
        The model after the last update, and the run's folder.
    """
    config, engine = experiment.config, experiment.engine
    data = experiment.training_data()
    validation = experiment.validation()
    largest = max(len(one.video_ids) for one in _sets_of(validation))
    for size_key, num_samples in (
        ("train_batch_size", data.samples_per_epoch),
        ("val_batch_size", largest),
    ):
        check_batches(
            experiment.resolved, device=engine.device, size_key=size_key, num_samples=num_samples
        )
    plan = build_plan(
        config, num_samples=data.num_samples, best_metric=config.best_metric, engine=engine
    )
    model = experiment.start_model(resumes=experiment.beginning.resumes)
    output = build_output(
        experiment.resolved,
        plan=plan,
        beginning=experiment.beginning,
        hashes=experiment.input_hashes(),
        derived=experiment.derived(data),
        engine=engine,
    )
    with build_reporter(config, plan=plan, output=output) as reporter:
        progress = with_heartbeat(reporter.progress, engine=engine)
        task = experiment.build_task(model, plan=plan, progress=progress)
        seed_everything(config.seed, rank=engine.rank)
        trainer = build_trainer(
            config, task, data=data, validation=validation, plan=plan, output=output,
            reporter=reporter, engine=engine,
        )  # fmt: skip
        if not config.dry_run:
            check_space(output.root, num_bytes=_bytes_of_first_files(model))
        sets = [*data.description, *experiment.describe(validation), *tested_on]
        log_summary(config, model, sets=sets, plan=plan, engine=engine)
        if config.dry_run:
            trainer.try_one_batch()
        else:
            trainer.fit()
    return model, output


def _bytes_of_first_files(model: nn.Module) -> int:
    """Return the least size of a checkpoint and a restore file, which has averages of gradients."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return 2 * weights + sum(one.nbytes for one in model.parameters() if one.requires_grad)


def _sets_of(validation: Any) -> list[Any]:
    """Sets that a run is validated on, of tasks with one and with several."""
    return validation if isinstance(validation, list) else [validation]
