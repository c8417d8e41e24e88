"""The course of a downstream run, whatever the task: finetune, or infer with a trained model."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alpro.configs.downstream import DownstreamDataset
from alpro.configs.schema import DownstreamConfig
from alpro.errors import InputError, NotNumbersError, RunError
from alpro.evaluation.eval_mode import silent_progress, with_heartbeat
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.experiment.finetuning_experiment import Evaluator, FinetuningExperiment
from alpro.experiment.memory import check_batches, check_model
from alpro.experiment.preflight import check_inference_inputs
from alpro.experiment.results import (
    explicit_arguments,
    protocol_of,
    results_folder,
    warn_of_replacement,
)
from alpro.experiment.run import check_run, train
from alpro.families.alpro.pretrained import load_checkpoint
from alpro.training.atomic_io import write_json
from alpro.training.reporting import console_progress
from alpro.training.run_directory import QUARANTINE, SIZE_KEY, RunDirectory
from alpro.training.writable import check_output_folder

logger = logging.getLogger(__name__)


def finetune(experiment: FinetuningExperiment[Any, Any, Any]) -> None:
    """Train a task's model, then evaluate the best checkpoint on the test sets."""
    config = experiment.config
    check_run(experiment)
    tests = [
        experiment.evaluation_set(part, num_clips=config.inference_n_clips)
        for part in config.test_datasets
    ]
    for data in tests:
        _check_memory(experiment, data)
    lines = [line for data in tests for line in experiment.describe(data)]
    model, output = train(experiment, tested_on=lines)
    if tests and not config.dry_run:
        evaluate_test_sets(experiment, model, tests, output=output)


def _check_memory(
    experiment: FinetuningExperiment[Any, Any, Any], data: EvaluationSet[Any]
) -> None:
    check_batches(
        experiment.resolved,
        device=experiment.engine.device,
        size_key="val_batch_size",
        num_samples=len(data.video_ids),
        num_clips=experiment.config.inference_n_clips,
    )


def infer(experiment: FinetuningExperiment[Any, Any, Any]) -> None:
    """Evaluate a trained model on one set of annotations and videos."""
    config = experiment.config
    checkpoint = Path(str(config.e2e_weights_path))
    part = _inference_set(config)
    check_output_folder(
        Path(config.output_dir),
        patterns=experiment.files_of_results(part, checkpoint, step=config.inference_model_step),
        appended=[QUARANTINE],
        tries=not config.dry_run,
    )
    check_inference_inputs(experiment.resolved, others=experiment.other_inputs())
    check_model(experiment.build_model, experiment.resolved, device=experiment.engine.device)
    data = experiment.evaluation_set(part, num_clips=config.inference_n_clips)
    _check_memory(experiment, data)
    evaluator = _evaluator_of(experiment, experiment.start_model())
    if config.dry_run:
        with naming(checkpoint):
            evaluator.run(data)
        count = f"{len(data.rows)} {experiment.ROWS}"
        logger.info("dry run: %s were evaluated, nothing is written", count)
        return
    if experiment.engine.rank == 0:
        experiment.sha256_of(checkpoint)  # which may be gone when the results are there
    step = config.inference_model_step
    with naming(checkpoint):
        evaluate_and_write(experiment, evaluator, data, checkpoint=checkpoint, step=step)


def evaluate_test_sets(
    experiment: FinetuningExperiment[Any, Any, Any],
    model: Any,
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
    load_checkpoint(model, checkpoint)
    evaluator = _evaluator_of(experiment, model)
    with naming(checkpoint):
        for data in tests:
            evaluate_and_write(experiment, evaluator, data, checkpoint=checkpoint, step="best")


@contextmanager
def naming(checkpoint: Path) -> Iterator[None]:
    """Context in which outputs that are not numbers are blamed on a checkpoint."""
    try:
        yield
    except NotNumbersError as error:
        raise RunError(f"{checkpoint}: {error}") from error


def _evaluator_of(experiment: FinetuningExperiment[Any, Any, Any], model: Any) -> Evaluator:
    progress = console_progress if experiment.engine.rank == 0 else silent_progress
    return experiment.build_evaluator(
        model, progress=with_heartbeat(progress, engine=experiment.engine)
    )


def evaluate_and_write(
    experiment: FinetuningExperiment[Any, Any, Any],
    evaluator: Evaluator,
    data: EvaluationSet[Any],
    *,
    checkpoint: Path,
    step: str,
) -> None:
    """Evaluate a model on a set; rank 0 writes the results and logs a table."""
    outcome = evaluator.run(data)
    config, engine = experiment.config, experiment.engine
    if engine.rank != 0:
        return
    folder = results_folder(
        config,
        data.annotations,
        checkpoint=checkpoint,
        step=step,
        suffix=experiment.results_suffix(),
    )
    protocol = {
        **protocol_of(
            config, data, checkpoint=checkpoint, sha256_of=experiment.sha256_of, engine=engine
        ),
        **experiment.protocol(),
    }
    warn_of_replacement(folder, protocol=protocol)
    write_json(folder / "raw_args.json", explicit_arguments(experiment.resolved))
    # The number of processes changes no number, so it is no part of the protocol.
    write_json(
        folder / "merged_args.json", {**experiment.resolved.to_json(), SIZE_KEY: engine.size}
    )
    table = experiment.write_results(folder, outcome, protocol=protocol)
    logger.info("%s: %s\nresults: %s", data.annotations, table, folder)


def _inference_set(config: DownstreamConfig) -> DownstreamDataset:
    """The set that the inference flags name."""
    return DownstreamDataset(
        name=config.inference_split or Path(str(config.inference_txt_db)).stem,
        txt=str(config.inference_txt_db),
        img=str(config.inference_img_db),
    )
