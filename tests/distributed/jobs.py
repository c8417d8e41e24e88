"""Jobs of several processes without a launcher: forked, and told what a launcher would tell them.

A start takes tenths of a second, since PyTorch is already imported.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from alpro.distributed.launch import launch_engine

T = TypeVar("T")
Variables = dict[str, str]

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds, so that processes that wait for each other end
LOCALHOST = "127.0.0.1"
TORCH, HOROVOD = "torch", "horovod"

# Set where Horovod must be installed, so that no test of it is left out unnoticed.
REQUIRED = os.environ.get("ALPRO_REQUIRE_HOROVOD") == "1"
needs_horovod = pytest.mark.skipif(
    find_spec("horovod") is None and not REQUIRED,
    reason="Horovod is not installed; env/install_pkg.sh builds it",
)
both_engines = pytest.mark.parametrize(
    "backend", [TORCH, pytest.param(HOROVOD, marks=needs_horovod)]
)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as listener:
        listener.bind((LOCALHOST, 0))
        return listener.getsockname()[1]


def launcher_variables(
    rank: int, size: int, *, port: int, local_size: int | None = None
) -> Variables:
    """What ``torchrun`` would tell a process; the first node's are all, or ``local_size``."""
    per_node = local_size or size
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank % per_node),
        "LOCAL_WORLD_SIZE": str(per_node),
        "GROUP_RANK": str(rank // per_node),
        "MASTER_ADDR": LOCALHOST,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none",
    }


@contextmanager
def launcher(backend: str, size: int, *, local_size: int | None) -> Iterator[list[Variables]]:
    """What a launcher tells each process, as long as it is there."""
    if backend == TORCH:
        port = free_port()
        yield [
            launcher_variables(rank, size, port=port, local_size=local_size) for rank in range(size)
        ]
        return
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.gloo_run import create_run_env_vars, create_slot_env_vars
    from horovod.runner.http.http_server import RendezvousServer

    per_node = local_size or size
    hosts = ",".join(f"node{node}:{per_node}" for node in range(size // per_node))
    slots = get_host_assignments(parse_hosts(hosts), size)
    server = RendezvousServer(0)
    port = server.start()
    server.init(slots)
    shared = create_run_env_vars(LOCALHOST, ["lo"], str(port))
    try:
        yield [{**shared, **create_slot_env_vars(slot)} for slot in slots]
    finally:
        server.stop()


def on_processes(
    size: int,
    work: Callable[..., T],
    *arguments: Any,
    backend: str = TORCH,
    local_size: int | None = None,
) -> list[T]:
    """What ``work(engine, *arguments)`` returns in each of ``size`` processes, in rank order.

    Args:
        size: number of processes.
        work: what each of them does.
        *arguments: of ``work``.
        backend: ``torch`` or ``horovod``.
        local_size: processes of each node, so that the job has several.
    """

    def with_engine() -> T:
        with launch_engine("auto", device="cpu", precision="fp32", num_threads=1) as engine:
            return work(engine, *arguments)

    return in_processes(size, with_engine, backend=backend, local_size=local_size)


def in_processes(
    size: int, work: Callable[[], T], *, backend: str = TORCH, local_size: int | None = None
) -> list[T]:
    """What ``work()`` returns in each of ``size`` processes, which start their engine themselves.

    A single process is told nothing.
    """
    context = multiprocessing.get_context("fork")
    orders = [context.Pipe(duplex=False) for _ in range(size)]
    reports = [context.Pipe(duplex=False) for _ in range(size)]
    # They are forked before a launcher starts threads.
    processes = [
        context.Process(target=_run, args=(orders[rank][0], reports[rank][1], work))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        if size == 1:
            orders[0][1].send({})
            return _receive(report for report, _ in reports)
        with launcher(backend, size, local_size=local_size) as variables:
            for (_, order), told in zip(orders, variables, strict=True):
                order.send(told)
            found = _receive(report for report, _ in reports)
            for process in processes:
                process.join(PATIENCE)
            assert [process.exitcode for process in processes] == [0] * size
            return found
    finally:
        for process in processes:
            process.kill()
            process.join()


def _receive(reports: Iterable[Connection]) -> list[Any]:
    """What the processes return; what has gone wrong in any of them."""
    results, problems = [], []
    for rank, report in enumerate(reports):
        assert report.poll(PATIENCE), f"rank {rank} does not answer"
        problem, result = pickle.loads(report.recv_bytes())
        results.append(result)
        if problem is not None:
            problems.append(f"rank {rank}:\n{problem}")
    assert not problems, "\n".join(problems)
    return results


def _run(order: Connection, report: Connection, work: Callable[[], Any]) -> None:
    """Be one of the processes; it ends without the clean-up of the tests' own process."""
    os.environ |= order.recv()
    torch.set_num_threads(1)
    code = 0
    try:
        answer = pickle.dumps((None, work()))
    except BaseException:  # noqa: BLE001  # whatever it is, the test must see it
        answer, code = pickle.dumps((traceback.format_exc(), None)), 1
    report.send_bytes(answer)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_launched(words: Sequence[str]) -> None:
    """Run a command in processes of their own, one thread each; it must succeed."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
