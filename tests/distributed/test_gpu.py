"""One process under ``torch.distributed``: on a GPU by NCCL, and as well on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.jobs import PATIENCE, free_port, in_processes, launcher_variables
from tests.distributed.single_rank import run

ROOT = Path(__file__).parents[2]
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
    done = subprocess.run(
        [str(TORCHRUN), *ALONE, "cuda", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cuda:nccl" in (tmp_path / "backends").read_text()
