"""One process under ``torch.distributed``: on a GPU by NCCL, and as well on the CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.distributed.jobs import free_port, in_processes, launcher_variables, run_launched
from tests.distributed.single_rank import run

TORCHRUN = Path(sys.executable).with_name("torchrun")
ALONE = ("--standalone", "--nproc_per_node", "1", "--module", "tests.distributed.single_rank")


def test_one_process_on_the_cpu(tmp_path: Path) -> None:
    def work() -> str:
        os.environ |= launcher_variables(0, 1, port=free_port())
        return run("cpu", tmp_path)

    (backends,) = in_processes(1, work)
    assert "gloo" in backends


@pytest.mark.gpu
def test_one_process_on_a_gpu_by_nccl(tmp_path: Path) -> None:
    """In processes of its own: CUDA does not survive a fork."""
    run_launched([str(TORCHRUN), *ALONE, "cuda", str(tmp_path)])
    assert "cuda:nccl" in (tmp_path / "backends").read_text()
