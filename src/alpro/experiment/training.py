"""How a training run begins, its plan, output folder and loop, from a config."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from alpro.configs.fields import per_run_keys
from alpro.configs.loading import ResolvedConfig
from alpro.configs.schema import ExperimentConfig
from alpro.distributed.engine import Engine, usable_precision
from alpro.distributed.launch import launcher_on_this_machine
from alpro.errors import InputError
from alpro.optimization.optimizer import ParameterGroup, build_optimizer, freeze_parameters
from alpro.optimization.schedules import learning_rate_at
from alpro.training.atomic_io import write_json
from alpro.training.checkpoints import CheckpointWriter
from alpro.training.faults import NonfiniteGuard, UnreadableVideoLog
from alpro.training.identity import HASHES_KEY, hashes_by_key
from alpro.training.reporting import Reporter, log_to_file
from alpro.training.run_directory import RunDirectory, read_stored
from alpro.training.task import Task, TrainingData, TrainingPlan
from alpro.training.trainer import Trainer

logger = logging.getLogger(__name__)

GroupParameters = Callable[[nn.Module, ExperimentConfig], list[ParameterGroup]]

DEBUG_STEPS = 3  # updates of a `debug` run
MAX_UPDATES = 10**9  # at ten updates a second they take three years
MAX_EXCESS = 1000  # times the run's batches that its one update may consist of
_SECONDS_TO_APPEAR = 60.0  # of a file on other machines
_PAUSE = 0.5  # seconds between two looks


@dataclass(frozen=True, slots=True)
class RunStart:
    """How a training run begins; the ranks have agreed on it."""

    overwrites: bool
    """The contents of the output folder are deleted."""
    resumes: bool
    """The run resumes from a restore file, which rank 0 reads."""
    launchers: tuple[str, ...]
    """Names of the launchers that have started the run's processes, this time or before."""


def agree_on_start(config: ExperimentConfig, *, engine: Engine) -> RunStart:
    """Agree with the other ranks on how a run begins, as rank 0 sees the output folder.

    All ranks must call it: it communicates.

    ``overwrite`` is meant for the first time that a launcher starts the processes. One that starts
    them again, after a failure or without a machine that was lost, means to go on. Its own count of
    restarts does not tell: it differs between machines, and leaves the lost ones out.
    """
    output = RunDirectory(Path(config.output_dir), rank=engine.rank)
    stored = read_stored(output.launchers).get("launchers")
    here = launcher_on_this_machine(), stored if isinstance(stored, list) else []
    gathered = engine.gather_objects(here)
    launchers = {name for name, _ in gathered if name is not None}
    before = set(gathered[0][1])
    overwrites = config.overwrite and not launchers & before
    continues = not overwrites and not config.dry_run and bool(output.restore_files())
    return RunStart(
        overwrites=overwrites,
        resumes=engine.gather_objects(continues)[0],
        launchers=tuple(sorted(launchers if overwrites else launchers | before)),
    )


def build_plan(
    config: ExperimentConfig, *, num_samples: int, best_metric: str, engine: Engine
) -> TrainingPlan:
    """Lengths and intervals of a run, by the original's formulas.

    Args:
        config: of the experiment.
        num_samples: videos read in one epoch, over all ranks.
        best_metric: validation metric that chooses the best checkpoint.
        engine: the job.
    """
    per_update = engine.size * config.train_batch_size * config.gradient_accumulation_steps
    num_train_steps = math.ceil(config.num_train_epochs * num_samples / per_update)
    _check_length(config, num_samples=num_samples, num_updates=num_train_steps, size=engine.size)
    unit = config.min_valid_steps
    return TrainingPlan(
        num_train_steps=num_train_steps,
        accumulation_steps=config.gradient_accumulation_steps,
        mean_accumulation=config.accumulation == "mean",
        valid_steps=math.ceil(num_train_steps / config.num_valid / unit) * unit,
        save_steps=max(1, int(config.save_steps_ratio * num_train_steps)),
        max_grad_norm=config.grad_norm,
        best_metric=best_metric,
        precision=usable_precision(config.precision, engine.device),
        stop_after=DEBUG_STEPS if config.debug else None,
    )


def _check_length(
    config: ExperimentConfig, *, num_samples: int, num_updates: int, size: int
) -> None:
    """Refuse a run that nobody can wait for, or whose first update does not come."""
    epochs, accumulated = config.num_train_epochs, config.gradient_accumulation_steps
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
    config: ExperimentConfig,
    task: Task,
    *,
    data: TrainingData,
    validation: Sequence[Any],
    plan: TrainingPlan,
    output: RunDirectory,
    reporter: Reporter,
    engine: Engine,
    parameter_groups: GroupParameters,
) -> Trainer:
    """The loop over a task whose model is on the engine's device.

    Args:
        config: of the experiment.
        task: what is trained.
        data: this rank's batches.
        validation: sets that ``task.evaluate`` takes.
        plan: lengths and intervals.
        output: the run's folder.
        reporter: shows and records numbers.
        engine: the job.
        parameter_groups: the family's, see `ModelFamily`.
    """
    frozen = freeze_parameters(task.model, config.freeze)
    if frozen:
        num_parameters = len(list(task.model.parameters()))
        logger.info("freeze: %d of the %d parameters stay as they are", len(frozen), num_parameters)
    steps_per_epoch = plan.num_train_steps / config.num_train_epochs
    return Trainer(
        task,
        engine=engine,
        optimizer=optimizer_of(config, task.model, parameter_groups=parameter_groups),
        learning_rate=partial(
            learning_rate_at,
            decay=config.decay,
            learning_rate=config.learning_rate,
            num_train_steps=plan.num_train_steps,
            warmup_ratio=config.warmup_ratio,
            milestones=[int(epoch * steps_per_epoch) for epoch in config.step_decay_epochs or ()],
        ),
        data=data,
        validate=partial(task.evaluate, *validation),
        plan=plan,
        output=output,
        checkpoints=CheckpointWriter(output, keep=config.keep_checkpoints),
        ledger=UnreadableVideoLog(
            output,
            max_fraction=config.max_unreadable_fraction,
            samples_per_epoch=data.samples_per_epoch,
        ),
        guard=NonfiniteGuard(output, policy=config.on_nonfinite, num_steps=plan.num_train_steps),
        reporter=reporter,
    )


def optimizer_of(
    config: ExperimentConfig, model: nn.Module, *, parameter_groups: GroupParameters
) -> Optimizer:
    """The optimizer over a model's trainable parameters."""
    return build_optimizer(
        parameter_groups(model, config),
        algorithm=config.optim,
        learning_rate=config.learning_rate,
        betas=config.betas,
    )


def build_output(
    resolved: ResolvedConfig[Any],
    *,
    plan: TrainingPlan,
    start: RunStart,
    hashes: Mapping[str, str],
    derived: Mapping[str, Any],
    engine: Engine,
) -> RunDirectory:
    """The run's output folder, made this run's own; a dry run leaves it alone.

    Args:
        resolved: the config.
        plan: lengths and intervals.
        start: what the ranks have agreed on.
        hashes: path of each file that the run learns from -> its SHA-256.
        derived: what is stored beside the config, in the names of ``ExperimentConfig.DERIVED``.
        engine: the job.

    Raises:
        InputError: if another run's output is there, or if other ranks cannot see the folder.
    """
    config: ExperimentConfig = resolved.config
    output = RunDirectory(Path(config.output_dir), rank=engine.rank)
    if config.dry_run:
        return output
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
        **derived,
    }
    arguments[HASHES_KEY] = hashes_by_key(arguments, hashes)
    may_differ = per_run_keys(type(config))
    output.claim(arguments, may_differ=may_differ, overwrite=start.overwrites)
    if start.launchers and output.is_writer:
        write_json(output.launchers, {"launchers": start.launchers})
    engine.gather_objects(None)  # nobody goes on before rank 0 has cleared the folder
    _check_shared(output, engine=engine)
    log_to_file(output.log / "log.txt", rank=engine.rank)
    return output


def _check_shared(output: RunDirectory, *, engine: Engine) -> None:
    """Check that all ranks see what rank 0 writes; a network file system may take its time."""
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


def build_reporter(
    config: ExperimentConfig, *, plan: TrainingPlan, output: RunDirectory
) -> Reporter:
    """Progress bar, TensorBoard and metrics file; the config counts the interval in batches."""
    interval = max(1, config.log_interval // config.gradient_accumulation_steps)
    return Reporter(output, total_steps=plan.last_step, log_interval=interval)
