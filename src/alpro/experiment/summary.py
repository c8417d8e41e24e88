"""What a training run is made of, in a few lines of the log."""

import logging
from collections.abc import Sequence

import torch
from torch import nn

from alpro.configs.schema import ExperimentConfig
from alpro.distributed.engine import Engine
from alpro.training.plan import TrainingPlan

logger = logging.getLogger(__name__)

FEW_UPDATES = 10  # a run of fewer teaches next to nothing, and is hardly meant


def log_summary(
    config: ExperimentConfig,
    model: nn.Module,
    *,
    sets: Sequence[str],
    plan: TrainingPlan,
    engine: Engine,
) -> None:
    """Log the machine's part, the model's size, the sets and the length of a run.

    Args:
        config: of the experiment.
        model: what is trained, with its frozen parameters marked.
        sets: what is trained, validated and tested on, in lines.
        plan: lengths and intervals.
        engine: the job.
    """
    logger.info(
        "device %s, precision %s, processes: %d, threads of each: %d",
        _device_name(engine.device),
        plan.precision,
        engine.size,
        torch.get_num_threads(),
    )
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trainable = sum(size for size, is_trainable in sizes if is_trainable)
    logger.info("parameters: %d trainable of %d", trainable, sum(size for size, _ in sizes))
    for line in sets:
        logger.info(line)
    logger.info(
        "epochs: %g, updates: %d, validation every %d, restore file every %d",
        config.num_train_epochs,
        plan.num_train_steps,
        plan.valid_steps,
        plan.save_steps,
    )
    if plan.num_train_steps < FEW_UPDATES and not config.debug and engine.rank == 0:
        logger.warning(
            "only %d update%s: lower train_batch_size or gradient_accumulation_steps, or raise "
            "num_train_epochs",
            plan.num_train_steps,
            "" if plan.num_train_steps == 1 else "s",
        )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
