"""Rules for all tests: no network, no state left behind, `gpu` skips where there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# Of processes that tests start.
_ROOT = Path(__file__).parents[1]
os.environ["PYTHONPATH"] = f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"

# What launchers tell their processes; a test must not depend on how the tests were started.
LAUNCHER_VARIABLES = (
    *("HOROVOD_RANK", "HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE"),
    *("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
)
# The terminal's size, which readline exports; progress bars and argparse fold to it.
TERMINAL_VARIABLES = ("COLUMNS", "LINES")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="PyTorch sees no GPU"))


@pytest.fixture(autouse=True)
def _leave_no_state_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bring back what scripts set for a whole process: logging, threads, denormals, the seed."""
    for name in (*LAUNCHER_VARIABLES, *TERMINAL_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level, threads = list(root.handlers), root.level, torch.get_num_threads()
    random_state = torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.set_rng_state(random_state)
