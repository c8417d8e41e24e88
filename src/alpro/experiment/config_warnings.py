"""What the user should know about a config before it is put to work."""

import logging
from typing import Any

import torch

from alpro.configs.loading import ResolvedConfig
from alpro.configs.schema import (
    DownstreamConfig,
    ExperimentConfig,
    PretrainConfig,
    QaConfig,
    RetrievalConfig,
)
from alpro.configs.sources import STORED_SOURCE
from alpro.distributed.engine import Engine
from alpro.training.precision import usable_precision

logger = logging.getLogger(__name__)


def log_notices(resolved: ResolvedConfig[Any], *, engine: Engine) -> None:
    """Warn of what has no effect, once for all processes."""
    if engine.rank == 0:
        for notice in [*resolved.warnings, *_notices(resolved, engine.device)]:
            logger.warning(notice)


def _notices(resolved: ResolvedConfig[Any], device: torch.device) -> list[str]:
    config: ExperimentConfig = resolved.config
    infers = isinstance(config, DownstreamConfig) and config.do_inference
    notices = []
    used = usable_precision(config.precision, device)
    if used != config.precision:
        notices.append(f"precision: {config.precision} needs a GPU; this run on a CPU uses {used}")
    if isinstance(config, DownstreamConfig) and not infers and len(config.val_datasets) > 1:
        first = config.val_datasets[0].name
        notices.append(f"val_datasets: only the first, {first}, is validated on")
    if config.random_init and config.e2e_weights_path is not None and not infers:
        notices.append("random_init has no effect: e2e_weights_path is given; null takes it away")
    if isinstance(config, PretrainConfig):
        notices += _entity_notices(config)
    if (
        isinstance(config, PretrainConfig | RetrievalConfig)
        and config.itm_start_ratio > 0
        and not config.use_itm
        and not infers
    ):
        notices.append("itm_start_ratio has no effect: use_itm is 0")
    if isinstance(config, QaConfig) and config.new_classifier:
        stored = resolved.sources["new_classifier"] == STORED_SOURCE  # and was of use in training
        if infers and not stored:
            notices.append("new_classifier has no effect: inference trains no classifier")
        if not infers and config.e2e_weights_path is None:
            notices.append("new_classifier has no effect: e2e_weights_path is not given")
    return notices


def _entity_notices(config: PretrainConfig) -> list[str]:
    """What the user should know about the entity loss."""
    if not config.use_mpm:
        return [
            f"{key} has no effect: use_mpm is 0"
            for key in ("teacher_weights_path", "entity_file_path")
            if getattr(config, key) is not None
        ]
    chance = 1 / config.num_entities
    if config.entity_threshold > chance:
        return []
    return [
        f"entity_threshold {config.entity_threshold:g} is not above chance, 1/num_entities = "
        f"{chance:.3g}: a mere guess of the prompter counts as confident"
    ]
