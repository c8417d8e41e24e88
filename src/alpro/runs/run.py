"""The order of a run: pretraining, finetuning and inference, from top to bottom."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from alpro.configs.downstream import DownstreamDataset
from alpro.configs.loading import ResolvedConfig
from alpro.distributed.engine import Engine
from alpro.distributed.launch import launch_engine
from alpro.errors import InputError, NotNumbersError, RunError, pluralize
from alpro.evaluation.evaluation_set import (
    EvaluationSet,
    Evaluator,
    silent_progress,
    with_heartbeat,
)
from alpro.experiment.experiment import Experiment
from alpro.experiment.weights import load_checkpoint
from alpro.families.registry import DEFAULT_FAMILY
from alpro.runs.build_training import (
    RunStart,
    agree_on_start,
    build_output,
    build_plan,
    build_trainer,
)
from alpro.runs.memory import check_batches, check_model
from alpro.runs.preflight import check_inference_inputs, check_training_inputs, log_notices
from alpro.runs.results import (
    explicit_arguments,
    log_summary,
    protocol_of,
    warn_of_replacement,
)
from alpro.training.atomic_io import write_json
from alpro.training.reporting import Reporter, console_progress, start_logging
from alpro.training.run_directory import (
    APPENDED,
    QUARANTINE,
    SIZE_KEY,
    WRITTEN_IN_TRAINING,
    RunDirectory,
)
from alpro.training.train_state import seed_everything
from alpro.training.writable import check_output_folder, check_space

logger = logging.getLogger(__name__)


@contextmanager
def launch_run(resolved: ResolvedConfig[Any]) -> Iterator[Engine]:
    """Context of the job that a config describes; yields this process's engine."""
    config = resolved.config
    with launch_engine(
        config.engine,
        device=config.device,
        precision=config.precision,
        num_threads=config.num_threads,
        hang_timeout=config.hang_timeout,
    ) as engine:
        start_logging(rank=engine.rank)
        if config.family != DEFAULT_FAMILY:
            logger.info("family: %s", config.family)
        log_notices(resolved, engine=engine)
        yield engine


def pretrain(experiment: Experiment[Any]) -> None:
    """Train a model from beginning to end; finetuning starts from its checkpoints."""
    start = check_run(experiment)
    train(experiment, start=start)


def finetune(experiment: Experiment[Any]) -> None:
    """Train a model, then evaluate its best checkpoint on the test sets."""
    config, data = experiment.config, experiment.task.data
    start = check_run(experiment)
    # Read the test sets before the training, so that their errors show at once.
    tests = [data.test(part, num_clips=config.inference_n_clips) for part in config.test_datasets]
    for test in tests:
        _check_memory(experiment, test)
    model, output = train(experiment, start=start, tested_on=[data.describe(one) for one in tests])
    if tests and not config.dry_run:
        evaluate_test_sets(experiment, model, tests, output=output)


def infer(experiment: Experiment[Any]) -> None:
    """Evaluate a trained model on one set of annotations and videos."""
    config, task = experiment.config, experiment.task
    checkpoint = Path(str(config.e2e_weights_path))
    # The flags name the set.
    part = DownstreamDataset(
        name=config.inference_split or Path(str(config.inference_txt_db)).stem,
        txt=str(config.inference_txt_db),
        img=str(config.inference_img_db),
    )
    # Check that results can be written, and that all inputs exist.
    check_output_folder(
        Path(config.output_dir),
        patterns=task.files_of_results(part, checkpoint, step=config.inference_model_step),
        appended=[QUARANTINE],
        tries=not config.dry_run,
    )
    check_inference_inputs(experiment.resolved, others=task.other_inputs())
    check_model(experiment)
    # Read the set, then load the model.
    data = task.data.test(part, num_clips=config.inference_n_clips)
    _check_memory(experiment, data)
    evaluator = _evaluator_of(experiment, experiment.start_model())
    # Evaluate.
    with _naming(checkpoint):
        if config.dry_run:
            evaluator.run(data)
            count = pluralize(len(data.rows), task.ROW)
            logger.info("dry run: %s were evaluated, nothing is written", count)
            return
        if experiment.engine.rank == 0:
            experiment.sha256_of(checkpoint)  # the file may be gone later
        step = config.inference_model_step
        evaluate_and_write(experiment, evaluator, data, checkpoint=checkpoint, step=step)


def check_run(experiment: Experiment[Any]) -> RunStart:
    """Check, before any work, that a run can write its output and read all its inputs."""
    config, task = experiment.config, experiment.task
    # The output folder must be writable.
    check_output_folder(
        Path(config.output_dir),
        patterns=[*WRITTEN_IN_TRAINING, *task.result_files()],
        appended=APPENDED,
        tries=not config.dry_run,
    )
    # Inputs depend on whether the run resumes, which the ranks agree on.
    start = agree_on_start(config, engine=experiment.engine)
    others = task.other_inputs(resumes=start.resumes)
    sets = task.data.all_paths()
    check_training_inputs(config, sets=sets, others=others, resumes=start.resumes)
    task.check(resumes=start.resumes)
    check_model(experiment)
    return start


def train(
    experiment: Experiment[Any], *, start: RunStart, tested_on: Sequence[str] = ()
) -> tuple[nn.Module, RunDirectory]:
    """Train a model that :func:`check_run` has approved; a dry run tries one batch.

    The lines of `tested_on` name the test sets in the log.

    Returns:
        The model after the last update, and the run's folder.
    """
    config, engine, task = experiment.config, experiment.engine, experiment.task
    # Read the sets, and check that their batches fit into memory.
    data = task.data.training()
    validation = task.data.validation()
    largest = max(len(one.video_ids) for one in validation)
    sizes = {"train_batch_size": data.sampler.examples_per_epoch, "val_batch_size": largest}
    for size_key, num_samples in sizes.items():
        check_batches(experiment, size_key=size_key, num_samples=num_samples)
    plan = build_plan(config, num_samples=data.num_samples, engine=engine)
    # Load the model before the output folder is claimed: a checkpoint that fails leaves no trace.
    model = experiment.start_model(resumes=start.resumes)
    output = build_output(experiment, plan=plan, start=start, data=data)
    # Build the objective and the trainer, log a summary, then train.
    interval = max(1, config.log_interval // config.gradient_accumulation_steps)  # in updates
    with Reporter(output, total_steps=plan.last_step, log_interval=interval) as reporter:
        progress = with_heartbeat(reporter.progress, engine=engine)
        objective = task.build_objective(model, plan=plan, progress=progress)
        seed_everything(config.seed, rank=engine.rank)
        trainer = build_trainer(
            experiment,
            objective,
            data=data,
            validation=validation,
            plan=plan,
            output=output,
            reporter=reporter,
        )
        if not config.dry_run:
            check_space(output.root, num_bytes=_bytes_of_first_files(model))
        sets = [*data.description, *map(task.data.describe, validation), *tested_on]
        log_summary(experiment, model, sets=sets, plan=plan)
        if config.dry_run:
            trainer.try_one_batch()
        else:
            trainer.fit()
    return model, output


def evaluate_test_sets(
    experiment: Experiment[Any],
    model: nn.Module,
    tests: Sequence[EvaluationSet[Any]],
    *,
    output: RunDirectory,
) -> None:
    """Evaluate the best checkpoint of a finished training run on its test sets."""
    checkpoint = output.checkpoint("best")
    if not checkpoint.exists():
        raise InputError(
            f"{checkpoint}: the best checkpoint of the run is gone. Put it back, or evaluate "
            "another one: --do_inference 1 --inference_model_step last."
        )
    load_checkpoint(model, checkpoint, layout=experiment.family.checkpoint)
    evaluator = _evaluator_of(experiment, model)
    with _naming(checkpoint):
        for data in tests:
            evaluate_and_write(experiment, evaluator, data, checkpoint=checkpoint, step="best")


def evaluate_and_write(
    experiment: Experiment[Any],
    evaluator: Evaluator,
    data: EvaluationSet[Any],
    *,
    checkpoint: Path,
    step: str,
) -> None:
    """Evaluate a model on a set; rank 0 writes the results and logs a table."""
    outcome = evaluator.run(data)
    engine, task = experiment.engine, experiment.task
    if engine.rank != 0:
        return
    # Collect what the numbers depend on; another protocol's results are not replaced silently.
    folder = task.results_folder(data.annotations, checkpoint, step=step)
    protocol = protocol_of(experiment, data, checkpoint=checkpoint)
    warn_of_replacement(folder, protocol=protocol)
    # Write the arguments, then the results.
    write_json(folder / "raw_args.json", explicit_arguments(experiment.resolved))
    # The number of processes changes no number, so it is no part of the protocol.
    merged = {**experiment.resolved.to_json(), SIZE_KEY: engine.size}
    write_json(folder / "merged_args.json", merged)
    table = task.write_results(folder, outcome, protocol=protocol)
    logger.info("%s: %s\nresults: %s", data.annotations, table, folder)


def _check_memory(experiment: Experiment[Any], data: EvaluationSet[Any]) -> None:
    num_samples, num_clips = len(data.video_ids), experiment.config.inference_n_clips
    check_batches(
        experiment, size_key="val_batch_size", num_samples=num_samples, num_clips=num_clips
    )


def _bytes_of_first_files(model: nn.Module) -> int:
    """Least size of a checkpoint and a restore file, which has averages of gradients."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return 2 * weights + sum(one.nbytes for one in model.parameters() if one.requires_grad)


@contextmanager
def _naming(checkpoint: Path) -> Iterator[None]:
    """Context in which outputs that are not numbers are blamed on a checkpoint."""
    try:
        yield
    except NotNumbersError as error:
        raise RunError(f"{checkpoint}: {error}") from error


def _evaluator_of(experiment: Experiment[Any], model: Any) -> Evaluator:
    progress = console_progress if experiment.engine.rank == 0 else silent_progress
    return experiment.task.build_evaluator(
        model, progress=with_heartbeat(progress, engine=experiment.engine)
    )
