"""Start, plan, output folder and trainer of a training run, from a config."""

import dataclasses
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from alpro.configs.experiment import ExperimentConfig
from alpro.configs.fields import per_run_keys
from alpro.configs.sources import with_current_keys
from alpro.distributed.engine import Engine, usable_precision
from alpro.distributed.launch import launcher_on_this_machine
from alpro.errors import InputError
from alpro.experiment.experiment import Experiment
from alpro.optimization.optimizer import build_optimizer, freeze_parameters, learning_rate_at
from alpro.training.atomic_io import write_json
from alpro.training.checkpoints import CheckpointWriter
from alpro.training.faults import NonfiniteGuard, UnreadableVideoLog
from alpro.training.identity import HASHES_KEY, hashes_by_key
from alpro.training.objective import Objective, TrainingData, TrainingPlan
from alpro.training.reporting import Reporter, log_to_file
from alpro.training.run_directory import RunDirectory, read_stored
from alpro.training.trainer import Trainer

logger = logging.getLogger(__name__)

DEBUG_STEPS = 3  # updates of a `debug` run
MAX_UPDATES = 10**9  # at ten updates a second they take three years
MAX_EXCESS = 1000  # times the run's batches that its one update may consist of
_SECONDS_TO_APPEAR = 60.0  # of a file on other machines
_PAUSE = 0.5  # seconds between two looks


@dataclass(frozen=True, slots=True)
class RunStart:
    """Start of a training run, agreed on by the ranks."""

    overwrites: bool
    """Delete the contents of the output folder."""
    resumes: bool
    """Resume from a restore file, which rank 0 reads."""
    launchers: tuple[str, ...]
    """Launchers that have started the run's processes, now or before."""


def agree_on_start(config: ExperimentConfig, *, engine: Engine) -> RunStart:
    """Agree on the start of a run, as rank 0 sees the output folder; communicates.

    ``overwrite`` is meant for the first time that a launcher starts the processes. One that
    restarts them, after a failure or without a machine that was lost, means to resume. Its own
    restart count is no help: it differs between machines, and leaves the lost ones out.
    """
    # Share the launchers of this start, and those that rank 0 finds stored.
    output = RunDirectory(Path(config.output_dir), rank=engine.rank)
    stored = read_stored(output.launchers).get("launchers")
    here = launcher_on_this_machine(), stored if isinstance(stored, list) else []
    gathered = engine.gather_objects(here)
    launchers = {name for name, _ in gathered if name is not None}
    before = set(gathered[0][1])
    # The same launcher again is a restart: resume in place of overwriting.
    overwrites = config.overwrite and not launchers & before
    resumes = not overwrites and not config.dry_run and bool(output.restore_files())
    return RunStart(
        overwrites=overwrites,
        resumes=engine.gather_objects(resumes)[0],
        launchers=tuple(sorted(launchers if overwrites else launchers | before)),
    )


def build_plan(config: Any, *, num_samples: int, engine: Engine) -> TrainingPlan:
    """Lengths and intervals of a run, by the original's formulas.

    `num_samples` are the videos read in one epoch over all ranks.
    """
    # Updates are counted over the whole run, as if epochs were joined end to end.
    per_update = engine.size * config.train_batch_size * config.gradient_accumulation_steps
    num_train_steps = math.ceil(config.num_train_epochs * num_samples / per_update)
    _check_length(config, num_samples=num_samples, num_updates=num_train_steps, size=engine.size)
    # Validation intervals are multiples of ``min_valid_steps``, restore intervals are not.
    unit = config.min_valid_steps
    return TrainingPlan(
        num_train_steps=num_train_steps,
        accumulation_steps=config.gradient_accumulation_steps,
        mean_accumulation=config.accumulation == "mean",
        valid_steps=math.ceil(num_train_steps / config.num_valid / unit) * unit,
        only_valid_steps=config.only_valid_steps,
        save_steps=max(1, int(config.save_steps_ratio * num_train_steps)),
        max_grad_norm=config.grad_norm,
        best_metric=config.best_metric,
        precision=usable_precision(config.precision, engine.device),
        stop_after=DEBUG_STEPS if config.debug else None,
    )


def _check_length(
    config: ExperimentConfig, *, num_samples: int, num_updates: int, size: int
) -> None:
    """Refuse a run that nobody can wait for, or whose first update never comes."""
    epochs, accumulated = config.num_train_epochs, config.gradient_accumulation_steps
    # Blocks of samples, updates, and batches of one update: none may exceed the data.
    if config.shuffle_block_size > num_samples:
        raise InputError(
            f"shuffle_block_size: blocks of {config.shuffle_block_size:,} cannot be made of the "
            f"{num_samples:,} samples of the training sets. Lower it."
        )
    if num_updates > MAX_UPDATES:
        raise InputError(
            f"num_train_epochs: {epochs} epochs of {num_samples:,} samples are {num_updates:,} "
            f"updates, more than the {MAX_UPDATES:,} that a run can have. Lower num_train_epochs, "
            "or raise train_batch_size."
        )
    num_batches = epochs * math.ceil(num_samples / (size * config.train_batch_size))
    if accumulated > MAX_EXCESS * num_batches:
        raise InputError(
            f"gradient_accumulation_steps: one update of {accumulated:,} batches would read each "
            f"sample many times; all {epochs} epochs have {num_batches:,} batches. Lower it."
        )


def build_trainer(
    experiment: Experiment[Any],
    objective: Objective,
    *,
    data: TrainingData,
    validation: Sequence[Any],
    plan: TrainingPlan,
    output: RunDirectory,
    reporter: Reporter,
) -> Trainer:
    """The trainer of an objective whose model is on the engine's device."""
    # Freeze before the optimizer collects what is trainable.
    config = experiment.config
    frozen = freeze_parameters(objective.model, config.freeze)
    if frozen:
        total = len(list(objective.model.parameters()))
        logger.info("freeze: %d of the %d parameters stay as they are", len(frozen), total)
    # Milestones are given in epochs, schedules count updates.
    steps_per_epoch = plan.num_train_steps / config.num_train_epochs
    # The trainer knows neither config nor family.
    return Trainer(
        objective,
        engine=experiment.engine,
        optimizer=optimizer_of(experiment, objective.model),
        learning_rate=partial(
            learning_rate_at,
            decay=config.decay,
            learning_rate=config.learning_rate,
            num_train_steps=plan.num_train_steps,
            warmup_ratio=config.warmup_ratio,
            milestones=[int(epoch * steps_per_epoch) for epoch in config.step_decay_epochs or ()],
        ),
        data=data,
        validate=partial(objective.evaluate, *validation),
        plan=plan,
        output=output,
        checkpoints=CheckpointWriter(output, keep=config.keep_checkpoints),
        ledger=UnreadableVideoLog(
            output,
            max_fraction=config.max_unreadable_fraction,
            samples_per_epoch=data.sampler.examples_per_epoch,
        ),
        guard=NonfiniteGuard(output, policy=config.on_nonfinite, num_steps=plan.num_train_steps),
        reporter=reporter,
    )


def optimizer_of(experiment: Experiment[Any], model: nn.Module) -> Optimizer:
    """The optimizer over a model's trainable parameters."""
    config = experiment.config
    return build_optimizer(
        experiment.family.parameter_groups(model, config),
        algorithm=config.optim,
        learning_rate=config.learning_rate,
        betas=config.betas,
    )


def build_output(
    experiment: Experiment[Any], *, plan: TrainingPlan, start: RunStart, data: TrainingData
) -> RunDirectory:
    """The run's output folder, claimed for this run; a dry run leaves it alone.

    Raises:
        InputError: if another run's output is there, or if other ranks cannot see the folder.
    """
    config, engine, resolved = experiment.config, experiment.engine, experiment.resolved
    hashes = _input_hashes(experiment, resumes=start.resumes)
    upgrade = partial(with_current_keys, type(config))
    output = RunDirectory(Path(config.output_dir), rank=engine.rank, upgrade=upgrade)
    if config.dry_run:
        return output
    # Describe the run: its config, sizes and files.
    arguments = {
        **resolved.to_json(),
        "script": config.SCRIPT,
        "n_gpu": engine.size,
        "num_train_steps": plan.num_train_steps,
        "valid_steps": plan.valid_steps,
        "save_steps": plan.save_steps,
        "architecture": {
            key: dataclasses.asdict(content) for key, content in resolved.architecture.items()
        },
        **experiment.task.derived(data),
    }
    arguments[HASHES_KEY] = hashes_by_key(arguments, hashes)
    # Rank 0 claims the folder, others wait until it is cleared.
    may_differ = per_run_keys(type(config))
    output.claim(arguments, may_differ=may_differ, overwrite=start.overwrites)
    if start.launchers and output.is_writer:
        write_json(output.launchers, {"launchers": start.launchers})
    engine.gather_objects(None)
    _check_shared(output, engine=engine)
    log_to_file(output.log / "log.txt", rank=engine.rank)
    return output


def _input_hashes(experiment: Experiment[Any], *, resumes: bool) -> dict[str, str]:
    """SHA-256 of each file that determines a run, by path; the vocabulary's by its folder."""
    # Starting weights count only where they are read, which a run that resumes does not do.
    task, folder = experiment.task, Path(experiment.config.tokenizer_dir)
    annotations = [one.annotations for one in task.data.all_paths()]
    files = [*annotations, *task.other_inputs(resumes=resumes).values()]
    vocabulary = experiment.family.tokenizer.file_in(folder)
    hashes = {str(path): experiment.sha256_of(path) for path in files}
    return {**hashes, str(folder): experiment.sha256_of(vocabulary)}


def _check_shared(output: RunDirectory, *, engine: Engine) -> None:
    """Check that all ranks see rank 0's files; a network file system may take its time."""
    deadline = time.monotonic() + _SECONDS_TO_APPEAR
    while not output.args.exists() and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    sees = engine.gather_objects(output.args.exists())
    blind = [rank for rank, one in enumerate(sees) if not one]
    if blind:
        raise InputError(
            f"output_dir: rank 0 has written {output.args}, but the ranks {blind} do not see it. "
            "Name a folder that all machines share."
        )
