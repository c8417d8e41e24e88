"""Protocol of an evaluation, and the summary of a run in the log."""

import logging
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alpro import __version__
from alpro.configs.loading import ResolvedConfig
from alpro.configs.sources import DEFAULT_SOURCE, INFERENCE_SOURCE, STORED_SOURCE
from alpro.datasets.decoding import decoder_of
from alpro.datasets.frame_sampling import evaluation_sampling
from alpro.errors import pluralize
from alpro.evaluation.evaluation_set import EvaluationSet
from alpro.experiment.experiment import Experiment
from alpro.training.objective import TrainingPlan
from alpro.training.run_directory import changed_keys, read_stored

logger = logging.getLogger(__name__)

FEW_UPDATES = 10  # a shorter run is hardly meant
_SAME_NUMBERS = ("version",)  # keys of the protocol that change no number
_NOT_GIVEN = (DEFAULT_SOURCE, STORED_SOURCE, INFERENCE_SOURCE)


def explicit_arguments(resolved: ResolvedConfig[Any]) -> dict[str, Any]:
    """Arguments that the command line and its config file set, without defaults and stored ones."""
    # Sources may name the alias of a key: ``flag (as num_workers)``.
    sources = resolved.sources.items()
    given = (key for key, source in sources if source.partition(" (as ")[0] not in _NOT_GIVEN)
    own = {key.split(".")[0] for key in given}
    return {key: value for key, value in resolved.to_json().items() if key in own}


def protocol_of(
    experiment: Experiment[Any], data: EvaluationSet[Any], *, checkpoint: Path
) -> dict[str, Any]:
    """Everything that the numbers of an evaluation depend on."""
    config, sha256_of = experiment.config, experiment.sha256_of
    # Only families with a preprocessing of their own have an entry for it.
    preprocessing = experiment.family.preprocessing(config).protocol()
    return {
        # Files, with their hashes.
        "annotations": str(data.annotations),
        "annotations_sha256": sha256_of(data.annotations),
        "videos": str(data.folder),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
        # Frames, texts and numerics.
        "num_frames": config.num_evaluated_frames,
        "num_clips": config.inference_n_clips,
        "clip_aggregation": config.score_agg_func,
        "frame_sampling": evaluation_sampling(config.frm_sampling_strategy),
        "frame_order": config.frame_order,
        "resolution": config.crop_img_size,
        "video_decoder": decoder_of(config.video_decoder),
        "max_txt_len": config.max_txt_len,
        "precision": experiment.precision,
        "attention": config.attention,
        "device": experiment.engine.device.type,
        "seed": config.seed,
        "version": __version__,
        **({"sample_rate": config.sample_rate} if config.sample_rate else {}),
        **({"preprocessing": preprocessing} if preprocessing else {}),
        **experiment.task.protocol(),
    }


def warn_of_replacement(folder: Path, *, protocol: Mapping[str, Any]) -> None:
    """Warn if a folder holds the results of another protocol, counts aside."""
    before = read_stored(folder / "scores.json").get("protocol")
    if not isinstance(before, dict):
        return
    changed = changed_keys(before, protocol, without=_SAME_NUMBERS)
    if changed:
        message = "; ".join(f"{key} {before[key]} there, {protocol[key]} now" for key in changed)
        logger.warning("these results replace others in %s: %s", folder, message)


def log_summary(
    experiment: Experiment[Any], model: nn.Module, *, sets: Sequence[str], plan: TrainingPlan
) -> None:
    """Log the device, the model's size, the sets and the length of a run."""
    # The job.
    config, engine = experiment.config, experiment.engine
    device = str(engine.device)
    if engine.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(engine.device)})"
    logger.info(
        "device %s, precision %s, processes: %d, threads of each: %d",
        *(device, plan.precision, engine.size, torch.get_num_threads()),
    )
    # The model and its data.
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trainable = sum(size for size, is_trainable in sizes if is_trainable)
    logger.info("parameters: %d trainable of %d", trainable, sum(size for size, _ in sizes))
    for line in sets:
        logger.info(line)
    # The length of the run.
    factors = (config.train_batch_size, engine.size, plan.accumulation_steps)
    logger.info("global batch: %d (%d x %d processes, %d accumulated)", prod(factors), *factors)
    logger.info(
        "epochs: %g, updates: %d, validation every %d, restore file every %d",
        *(config.num_train_epochs, plan.num_train_steps, plan.valid_steps, plan.save_steps),
    )
    if plan.num_train_steps < FEW_UPDATES and not config.debug and engine.rank == 0:
        logger.warning(
            "only %s: lower train_batch_size or gradient_accumulation_steps, or raise "
            "num_train_epochs",
            pluralize(plan.num_train_steps, "update"),
        )
