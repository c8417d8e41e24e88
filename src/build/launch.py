"""The start of any run: the engine, the log, and what the user should know."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from src.build.notices import log_notices
from src.configs.loading import Resolved
from src.distributed.engine import Engine
from src.distributed.launch import launch_engine
from src.training.reporting import start_logging


@contextmanager
def launched(resolved: Resolved[Any]) -> Iterator[Engine]:
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
