"""The start of any run: the engine, the log, and what the user should know."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alpro.configs.loading import ResolvedConfig
from alpro.distributed.engine import Engine
from alpro.distributed.launch import launch_engine
from alpro.experiment.config_warnings import log_notices
from alpro.training.reporting import start_logging


@contextmanager
def launch_run(resolved: ResolvedConfig[Any]) -> Iterator[Engine]:
    """Context of a job that a config describes; yields this process's view of it."""
    config = resolved.config
    with launch_engine(
        config.engine,
        device=config.device,
        precision=config.precision,
        num_threads=config.num_threads,
        hang_timeout=config.hang_timeout,
    ) as engine:
        start_logging(rank=engine.rank)
        log_notices(resolved, engine=engine)
        yield engine
