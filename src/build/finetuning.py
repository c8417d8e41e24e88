"""The course of a downstream run, whatever the task: finetune, or infer with a trained model."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.build.inputs import check_inference_inputs, check_training_inputs
from src.build.recipe import Evaluator, Recipe
from src.build.results import (
    given_arguments,
    protocol_of,
    results_folder,
    warn_of_replacement,
)
from src.build.summary import log_summary
from src.build.training import (
    build_output,
    build_plan,
    build_reporter,
    build_trainer,
    will_resume,
)
from src.configs.schema import DatasetConfig, DownstreamConfig
from src.evaluation.running import silent_progress
from src.evaluation.sets import EvaluationSet
from src.training.output import OutputFolder, check_output_folder, write_json
from src.training.reporting import console_progress
from src.training.seeding import seed_everything
from src.training.weights import load_checkpoint

logger = logging.getLogger(__name__)


def finetune(recipe: Recipe[Any, Any, Any]) -> None:
    """Train a task's model, then evaluate the best checkpoint on the test sets."""
    config, engine = recipe.config, recipe.engine
    check_output_folder(Path(config.output_dir))
    check_training_inputs(
        config, annotation_path=recipe.annotation_path, others=recipe.other_inputs()
    )
    data = recipe.training_data()
    validation = recipe.validation_set()
    tests = [
        recipe.evaluation_set(part, num_clips=config.inference_n_clips)
        for part in config.test_datasets
    ]
    model = recipe.start_model(resumes=will_resume(config))
    plan = build_plan(
        config, num_samples=data.num_samples, best_metric=config.best_metric, engine=engine
    )
    output = build_output(
        recipe.resolved, plan=plan, inputs=_inputs(recipe), derived=recipe.derived(data),
        engine=engine,
    )  # fmt: skip
    with build_reporter(config, plan=plan, output=output) as reporter:
        evaluator = recipe.build_evaluator(model, progress=reporter.progress)
        task = recipe.build_task(model, evaluator, plan=plan)
        seed_everything(config.seed, rank=engine.rank)
        trainer = build_trainer(
            config, task, data=data, validation=validation, plan=plan, output=output,
            reporter=reporter, engine=engine,
        )  # fmt: skip
        log_summary(
            config, model, data=data, evaluation_sets=[validation, *tests], rows=recipe.ROWS,
            plan=plan, engine=engine,
        )  # fmt: skip
        if config.dry_run:
            trainer.try_one_batch()
            return
        trainer.fit()
    evaluate_test_sets(recipe, evaluator, tests, output=output)


def infer(recipe: Recipe[Any, Any, Any]) -> None:
    """Evaluate a trained model on one set of annotations and videos."""
    config, engine = recipe.config, recipe.engine
    check_output_folder(Path(config.output_dir))
    check_inference_inputs(recipe.resolved, others=recipe.other_inputs())
    data = recipe.evaluation_set(_inference_set(config), num_clips=config.inference_n_clips)
    model = recipe.start_model()
    evaluator = recipe.build_evaluator(
        model, progress=console_progress if engine.rank == 0 else silent_progress
    )
    if config.dry_run:
        evaluator.run(data)
        count = f"{len(data.rows)} {recipe.ROWS}"
        logger.info("dry run: %s were evaluated, nothing is written", count)
        return
    checkpoint = Path(str(config.e2e_weights_path))
    evaluate_and_write(
        recipe, evaluator, data, checkpoint=checkpoint, step=config.inference_model_step
    )


def evaluate_test_sets(
    recipe: Recipe[Any, Any, Any],
    evaluator: Evaluator,
    tests: Sequence[EvaluationSet[Any]],
    *,
    output: OutputFolder,
) -> None:
    """Evaluate the best checkpoint of a finished training run on its test sets, if any."""
    if not tests:
        return
    checkpoint = output.checkpoint("best")
    load_checkpoint(evaluator.model, checkpoint)
    for data in tests:
        evaluate_and_write(recipe, evaluator, data, checkpoint=checkpoint, step="best")


def evaluate_and_write(
    recipe: Recipe[Any, Any, Any],
    evaluator: Evaluator,
    data: EvaluationSet[Any],
    *,
    checkpoint: Path,
    step: str,
) -> None:
    """Evaluate a model on a set; rank 0 writes the results and logs a table."""
    outcome = evaluator.run(data)
    config, engine = recipe.config, recipe.engine
    if engine.rank != 0:
        return
    folder = results_folder(
        config, data, checkpoint=checkpoint, step=step, suffix=recipe.results_suffix()
    )
    protocol = {
        **protocol_of(config, data, checkpoint=checkpoint, engine=engine),
        **recipe.protocol(),
    }
    warn_of_replacement(folder, protocol=protocol)
    write_json(folder / "raw_args.json", given_arguments(recipe.resolved))
    write_json(folder / "merged_args.json", recipe.resolved.to_json())
    table = recipe.write_results(folder, outcome, protocol=protocol)
    logger.info("%s: %s\nresults: %s", data.annotations, table, folder)


def _inference_set(config: DownstreamConfig) -> DatasetConfig:
    """The set that the inference flags name."""
    return DatasetConfig(
        name=config.inference_split or Path(str(config.inference_txt_db)).stem,
        txt=str(config.inference_txt_db),
        img=str(config.inference_img_db),
    )


def _inputs(recipe: Recipe[Any, Any, Any]) -> list[Path]:
    """Files that a training run learns from."""
    config = recipe.config
    parts = (*config.train_datasets, *config.val_datasets, *config.test_datasets)
    return [*(recipe.annotation_path(part) for part in parts), *recipe.other_inputs().values()]
