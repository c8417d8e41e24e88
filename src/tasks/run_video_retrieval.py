"""Text-video retrieval: finetuning with validation and test, or inference with a trained model.

    [horovodrun -np N] python src/tasks/run_video_retrieval.py --config FILE --output_dir DIR
        [--do_inference 1 --inference_txt_db FILE --inference_img_db DIR] [--KEY VALUE ...]

The heavy imports are inside the functions: ``--help`` and errors in a config come at once.
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root, where `src` is

from src.configs.loading import Resolved, load_config
from src.configs.schema import RetrievalConfig
from src.errors import run_script

if TYPE_CHECKING:
    from src.distributed.engine import Engine

logger = logging.getLogger(__name__)


def main() -> None:
    """Resolve the config, start the engine, then train or infer."""
    resolved = load_config(RetrievalConfig, sys.argv[1:])
    config = resolved.config
    from src.build.notices import log_notices
    from src.distributed.launch import launch_engine
    from src.training.reporting import start_logging

    with launch_engine(
        config.engine,
        device=config.device,
        precision=config.precision,
        num_threads=config.num_threads,
    ) as engine:
        start_logging(rank=engine.rank)
        log_notices(resolved, engine=engine)
        if config.do_inference:
            infer(resolved, engine)
        else:
            train(resolved, engine)


def train(resolved: "Resolved[RetrievalConfig]", engine: "Engine") -> None:
    """Finetune, then evaluate the best checkpoint on the test sets."""
    from src.build.data import build_evaluation_set, build_training_data
    from src.build.inputs import check_training_inputs
    from src.build.model import build_tokenizer, start_retrieval_model
    from src.build.retrieval import build_evaluator, build_task, evaluate_test_sets
    from src.build.summary import log_summary
    from src.build.training import (
        build_output,
        build_plan,
        build_reporter,
        build_trainer,
        will_resume,
    )
    from src.training.output import check_output_folder
    from src.training.seeding import seed_everything

    config = resolved.config
    check_output_folder(Path(config.output_dir))
    check_training_inputs(config)
    tokenizer = build_tokenizer(resolved)
    data = build_training_data(config, tokenizer=tokenizer, engine=engine)
    validation = build_evaluation_set(config, config.val_datasets[0], engine=engine)
    tests = [build_evaluation_set(config, part, engine=engine) for part in config.test_datasets]
    model = start_retrieval_model(resolved, engine=engine, resumes=will_resume(config))
    plan = build_plan(
        config, num_examples=data.num_examples, best_metric=config.best_metric, engine=engine
    )
    output = build_output(resolved, plan=plan, engine=engine)
    with build_reporter(config, plan=plan, output=output) as reporter:
        evaluator = build_evaluator(
            resolved, model, tokenizer=tokenizer, engine=engine, progress=reporter.progress
        )
        task = build_task(config, model, evaluator, plan=plan, engine=engine)
        seed_everything(config.seed, rank=engine.rank)
        trainer = build_trainer(
            config, task, data=data, validation=validation, plan=plan, output=output,
            reporter=reporter, engine=engine,
        )  # fmt: skip
        log_summary(
            config, model, data=data, evaluation_sets=[validation, *tests], plan=plan, engine=engine
        )
        if config.dry_run:
            trainer.try_one_batch()
            return
        trainer.fit()
    evaluate_test_sets(resolved, evaluator, tests, output=output, engine=engine)


def infer(resolved: "Resolved[RetrievalConfig]", engine: "Engine") -> None:
    """Evaluate a trained model on one set of captions and videos."""
    from src.build.data import build_evaluation_set
    from src.build.inputs import check_inference_inputs
    from src.build.model import build_tokenizer, start_retrieval_model
    from src.build.retrieval import build_evaluator, evaluate_and_write, inference_set
    from src.training.output import check_output_folder

    config = resolved.config
    check_output_folder(Path(config.output_dir))
    check_inference_inputs(config)
    tokenizer = build_tokenizer(resolved)
    data = build_evaluation_set(config, inference_set(config), engine=engine)
    model = start_retrieval_model(resolved, engine=engine)
    evaluator = build_evaluator(resolved, model, tokenizer=tokenizer, engine=engine)
    if config.dry_run:
        evaluator.run(data)
        logger.info("dry run: %d captions were evaluated, nothing is written", len(data.rows))
        return
    evaluate_and_write(
        resolved,
        evaluator,
        data,
        checkpoint=Path(str(config.e2e_weights_path)),
        step=config.inference_model_step,
        engine=engine,
    )


if __name__ == "__main__":
    run_script(main)
