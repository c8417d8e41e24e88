"""How an evaluation runs: with a progress display, and with the model in evaluation mode."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from alpro.distributed.engine import Engine
from alpro.modeling.contracts import Encoders

Progress = Callable[[Iterable[Any], str, str], Iterator[Any]]  # items, description, unit


def silent_progress(
    items: Iterable[Any],
    description: str,  # noqa: ARG001
    unit: str,  # noqa: ARG001
) -> Iterator[Any]:
    """The progress display that shows nothing."""
    return iter(items)


def with_heartbeat(progress: Progress, *, engine: Engine) -> Progress:
    """A progress display that tells the watchdog of each item, too."""

    def shown(items: Iterable[Any], description: str, unit: str) -> Iterator[Any]:
        for item in progress(items, description, unit):
            engine.heartbeat()
            yield item

    return shown


@contextmanager
def evaluation_mode(model: Encoders) -> Iterator[None]:
    """Context in which a model is in evaluation mode; its former mode comes back afterwards."""
    was_training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(was_training)
