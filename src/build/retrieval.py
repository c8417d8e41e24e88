"""What is the retrieval task's own: its objective, its evaluation and what that leaves behind."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from src import __version__
from src.configs.loading import Resolved
from src.configs.schema import DatasetConfig, RetrievalConfig
from src.datasets.annotations import sha256_of
from src.datasets.sampling import evaluation_sampling
from src.datasets.tokenization import Tokenizer, tokenize
from src.datasets.transforms import Normalize
from src.distributed.engine import Engine
from src.evaluation.report import metrics_table, write_results
from src.evaluation.retrieval import (
    Progress,
    RetrievalEvaluator,
    RetrievalSet,
    silent_progress,
)
from src.modeling.alpro import AlproForRetrieval
from src.tasks.retrieval_task import RetrievalTask
from src.training.output import OutputFolder, write_json
from src.training.precision import usable_precision
from src.training.reporting import console_progress
from src.training.trainer import TrainingPlan
from src.training.weights import load_checkpoint

logger = logging.getLogger(__name__)


def build_evaluator(
    resolved: Resolved[RetrievalConfig],
    model: AlproForRetrieval,
    *,
    tokenizer: Tokenizer,
    engine: Engine,
    progress: Progress | None = None,
) -> RetrievalEvaluator:
    """Scoring of texts against videos, as validation and inference both use it."""
    config = resolved.config

    def tokens_of(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return tokenize(tokenizer, texts, max_length=config.max_txt_len)

    if progress is None:
        progress = console_progress if engine.rank == 0 else silent_progress
    return RetrievalEvaluator(
        model,
        tokenize=tokens_of,
        normalize=build_normalize(config, engine=engine),
        engine=engine,
        precision=usable_precision(config.precision, engine.device),
        caption_chunk=(
            config.inference_batch_size if config.do_inference else config.eval_retrieval_batch_size
        ),
        top_k=config.retrieval_top_k,
        use_matching=config.use_itm,
        allow_missing_videos=config.allow_missing_videos,
        progress=progress,
    )


def build_normalize(config: RetrievalConfig, *, engine: Engine) -> Normalize:
    """Pixel normalisation on the engine's device."""
    return Normalize(config.img_pixel_mean, config.img_pixel_std).to(engine.device)


def build_task(
    config: RetrievalConfig,
    model: AlproForRetrieval,
    evaluator: RetrievalEvaluator,
    *,
    plan: TrainingPlan,
    engine: Engine,
) -> RetrievalTask:
    """VTC + VTM over a model."""
    return RetrievalTask(
        model,
        engine=engine,
        normalize=build_normalize(config, engine=engine),
        evaluator=evaluator,
        use_itc=config.use_itc,
        use_itm=config.use_itm,
        itm_start_step=1 + math.floor(config.itm_start_ratio * plan.num_train_steps),
        mask_same_video=config.mask_same_video,
        validation_batch=config.val_batch_size,
    )


def inference_set(config: RetrievalConfig) -> DatasetConfig:
    """The set that the inference flags name."""
    return DatasetConfig(
        name=config.inference_split or Path(str(config.inference_txt_db)).stem,
        txt=str(config.inference_txt_db),
        img=str(config.inference_img_db),
    )


def evaluate_test_sets(
    resolved: Resolved[RetrievalConfig],
    evaluator: RetrievalEvaluator,
    tests: Sequence[RetrievalSet],
    *,
    output: OutputFolder,
    engine: Engine,
) -> None:
    """Evaluate the best checkpoint of a finished training run on its test sets, if any."""
    if not tests:
        return
    checkpoint = output.checkpoint("best")
    load_checkpoint(evaluator.model, checkpoint)
    for data in tests:
        evaluate_and_write(
            resolved, evaluator, data, checkpoint=checkpoint, step="best", engine=engine
        )


def evaluate_and_write(
    resolved: Resolved[RetrievalConfig],
    evaluator: RetrievalEvaluator,
    data: RetrievalSet,
    *,
    checkpoint: Path,
    step: str,
    engine: Engine,
) -> None:
    """Evaluate a model on a set; rank 0 writes the results and logs a table."""
    outcome = evaluator.run(data)
    if engine.rank != 0:
        return
    config = resolved.config
    folder = results_folder(config, data, checkpoint=checkpoint, step=step)
    write_json(folder / "raw_args.json", given_arguments(resolved))
    write_json(folder / "merged_args.json", resolved.to_json())
    metrics = write_results(
        folder, outcome, protocol=protocol_of(resolved, data, checkpoint=checkpoint, engine=engine)
    )
    logger.info(
        "%s: %d captions, %d videos\n%s\nresults: %s",
        data.annotations,
        len(outcome.caption_ids),
        len(outcome.video_ids),
        metrics_table(metrics),
        folder,
    )


def results_folder(
    config: RetrievalConfig, data: RetrievalSet, *, checkpoint: Path, step: str
) -> Path:
    """The original's folder for results.

    Other ways to evaluate than the original's, and checkpoints from elsewhere than the run's own
    folder, have folders of their own.
    """
    own = OutputFolder(Path(config.output_dir), rank=0).checkpoint(step)
    model = step if checkpoint.absolute() == own.absolute() else checkpoint.stem
    name = f"step_{model}_{config.inference_n_clips}_{config.score_agg_func}"
    if config.retrieval_top_k > 0:
        name += f"_top{config.retrieval_top_k}"
    if not config.use_itm:
        name += "_vtc"
    if config.frame_order != "original":
        name += f"_{config.frame_order}"
    return Path(config.output_dir) / f"results_{data.annotations.stem}" / name


def given_arguments(resolved: Resolved[RetrievalConfig]) -> dict[str, Any]:
    """What the command line and its config file have set, without defaults and stored values."""
    sources = resolved.sources.items()
    own = {key.split(".")[0] for key, source in sources if _first_part(source) not in _NOT_GIVEN}
    return {key: value for key, value in resolved.to_json().items() if key in own}


_NOT_GIVEN = ("default", "stored args.json", "inference")


def _first_part(source: str) -> str:
    """A source without the other name under which it has a key: ``flag (as num_workers)``."""
    return source.partition(" (as ")[0]


def protocol_of(
    resolved: Resolved[RetrievalConfig], data: RetrievalSet, *, checkpoint: Path, engine: Engine
) -> dict[str, Any]:
    """Everything that the numbers of an evaluation depend on."""
    config = resolved.config
    return {
        "annotations": str(data.annotations),
        "annotations_sha256": sha256_of(data.annotations),
        "videos": str(data.folder),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
        "num_frames": config.num_frm,
        "frame_sampling": evaluation_sampling(config.frm_sampling_strategy),
        "frame_order": config.frame_order,
        "resolution": config.crop_img_size,
        "video_decoder": config.video_decoder,
        "max_txt_len": config.max_txt_len,
        "retrieval_top_k": config.retrieval_top_k,
        "matching": config.use_itm,
        "precision": usable_precision(config.precision, engine.device),
        "seed": config.seed,
        "num_processes": engine.size,
        "version": __version__,
    }
