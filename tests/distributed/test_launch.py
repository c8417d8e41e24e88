"""Which engine a process gets from its launcher's environment and the user's wishes."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any
from unittest import mock

import pytest
import torch

from alpro.distributed.engine import SingleProcess
from alpro.distributed.launch import launch_engine, launcher_on_this_machine
from alpro.distributed.multi_process import DistributedEngine
from alpro.distributed.torch_distributed import VARIABLES
from alpro.errors import InputError, PeerLostError, TerminatedError
from tests.distributed.jobs import (
    HOROVOD,
    TORCH,
    both_engines,
    free_port,
    in_processes,
    launcher_variables,
    needs_horovod,
)

CPU_RUN: dict[str, Any] = {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process is one of two that ``torchrun`` has started; nobody is at the port."""
    variables = launcher_variables(0, 2, port=1)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def horovodrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is one of two that ``horovodrun`` has started."""
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setenv("HOROVOD_SIZE", "2")


def refusal(name: str) -> str:
    with pytest.raises(InputError) as caught, launch_engine(name, **CPU_RUN):
        pass
    return str(caught.value)


@pytest.mark.parametrize("name", ["auto", "single"])
def test_one_process_by_default(name: str) -> None:
    with launch_engine(name, device="cpu", precision="fp16", num_threads=1) as engine:
        assert isinstance(engine, SingleProcess)
        assert engine.device == torch.device("cpu")
        assert engine.state_dict() == {}  # no loss scale on a CPU
        assert torch.get_num_threads() == 1


def engine_of(name: str) -> tuple[str, str, int, int, int]:
    with launch_engine(name, **CPU_RUN) as engine:
        communicator = engine._communicator  # type: ignore[attr-defined]  # noqa: SLF001
        return (
            type(engine).__name__,
            type(communicator).__name__,
            engine.rank,
            engine.size,
            communicator.local_size,
        )


@both_engines
@pytest.mark.parametrize("is_named", [False, True])
def test_the_launcher_chooses_the_engine(backend: str, is_named: bool) -> None:
    name = backend if is_named else "auto"
    communicator = {TORCH: "TorchCommunicator", HOROVOD: "HorovodCommunicator"}[backend]
    found = in_processes(2, lambda: engine_of(name), backend=backend)
    assert found == [("DistributedEngine", communicator, rank, 2, 2) for rank in range(2)]


def test_one_process_of_torchrun_is_a_job_of_one() -> None:
    def work() -> tuple[str, str, int, int, int]:
        os.environ |= launcher_variables(0, 1, port=free_port())
        return engine_of("auto")

    assert in_processes(1, work) == [("DistributedEngine", "TorchCommunicator", 0, 1, 1)]


@both_engines
@pytest.mark.parametrize(
    ("wish", "told", "expected"), [(0, None, 4), (0, "7", 7), (3, None, 3), (3, "7", 3)]
)
def test_processes_of_a_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, backend: str, wish: int, told: str | None, expected: int
) -> None:
    """Unless the user names a number, or OMP_NUM_THREADS does."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def work() -> int:
        torch.set_num_threads(7)
        with launch_engine("auto", **CPU_RUN, num_threads=wish):
            return torch.get_num_threads()

    assert in_processes(4, work, backend=backend, local_size=2) == [expected] * 4


@pytest.mark.parametrize(
    ("name", "variable", "launcher"),
    [
        ("single", "WORLD_SIZE", "torchrun"),
        ("single", "HOROVOD_SIZE", "horovodrun"),
        ("auto", "OMPI_COMM_WORLD_SIZE", "mpirun"),
    ],
)
def test_processes_that_would_not_know_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str, launcher: str
) -> None:
    monkeypatch.setenv(variable, "2")
    message = refusal(name)
    assert f"one of several processes of {launcher} ({variable} is 2)" in message
    assert "horovodrun -np N or torchrun --nproc_per_node N, with engine auto" in message
    monkeypatch.setenv(variable, "1")
    with launch_engine(name, **CPU_RUN) as engine:
        assert engine.size == 1


@pytest.mark.usefixtures("torchrun")
def test_horovod_under_torchrun_is_refused() -> None:
    assert refusal("horovod") == (
        "engine: horovod was asked for, but this process was started by torchrun. "
        "Start the run with horovodrun, or leave engine at auto."
    )


@pytest.mark.usefixtures("horovodrun")
def test_torch_under_horovodrun_is_refused() -> None:
    assert refusal("torch") == (
        "engine: torch was asked for, but this process was started by horovodrun. "
        "Start the run with torchrun, or leave engine at auto."
    )


def test_torch_needs_a_launcher(monkeypatch: pytest.MonkeyPatch, torchrun: dict[str, str]) -> None:
    for name in torchrun:
        monkeypatch.delenv(name)
    assert refusal("torch") == (
        f"engine: torch needs a launcher. The environment lacks {', '.join(VARIABLES)}; torchrun "
        "--nproc_per_node N sets them."
    )
    monkeypatch.setenv("WORLD_SIZE", "2")  # what others than torchrun set, too
    lacking = [name for name in VARIABLES if name != "WORLD_SIZE"]
    assert f"lacks {', '.join(lacking)};" in refusal("auto")


@pytest.mark.parametrize("name", ["horovod", "auto"])
def test_horovod_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    monkeypatch.delitem(sys.modules, "alpro.distributed.horovod", raising=False)
    monkeypatch.delattr("alpro.distributed.horovod", raising=False)
    message = refusal(name)
    assert message.startswith("engine: horovod is not installed. Install Horovod with ")
    assert "env/install_pkg.sh, start the run with torchrun, or run one process" in message


def test_processes_of_one_torchrun_know_it(torchrun: dict[str, str]) -> None:
    """Its name is that of the processes' parent, which is the tests' process here."""
    assert torchrun
    names = in_processes(2, launcher_on_this_machine)
    assert names[0] is not None
    assert names == in_processes(2, launcher_on_this_machine)  # as after a restart
    assert names == [names[0]] * 2
    assert names[0] != launcher_on_this_machine()


@needs_horovod
def test_other_launchers_have_no_name() -> None:
    assert launcher_on_this_machine() is None
    assert in_processes(2, launcher_on_this_machine, backend=HOROVOD) == [None] * 2


def watchdogs() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "watchdog"]


@pytest.mark.parametrize("error", [None, TerminatedError, ValueError, PeerLostError])
def test_a_watchdog_watches_as_long_as_the_engine_is_there(error: type[Exception] | None) -> None:
    def run() -> None:
        with launch_engine("auto", **CPU_RUN, hang_timeout=600.0):
            assert watchdogs() == ["watchdog"]
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert watchdogs() == []
    with launch_engine("auto", **CPU_RUN, hang_timeout=0.0):
        assert watchdogs() == []


@both_engines
@pytest.mark.parametrize(("error", "leaves"), [(TerminatedError, True), (ValueError, False)])
def test_a_job_is_left_in_order_unless_it_fails(
    backend: str, error: type[Exception], leaves: bool
) -> None:
    """Good-byes wait for the other ranks, which may stand somewhere else for ever."""

    def work() -> bool:
        with mock.patch.object(DistributedEngine, "close", autospec=True) as close:
            try:
                with launch_engine("auto", **CPU_RUN) as engine:
                    engine.gather_objects(None)
                    raise error
            except error:
                return bool(close.called)

    assert in_processes(2, work, backend=backend) == [leaves] * 2


@pytest.mark.gpu
def test_the_gpu_is_chosen_by_itself() -> None:
    with launch_engine("auto", device="auto", precision="fp16") as engine:
        assert engine.device == torch.device("cuda", 0)
        assert engine.state_dict()["scale"] > 1
    with launch_engine("auto", device="cpu", precision="fp32") as engine:
        assert engine.device == torch.device("cpu")


def test_gradients_on_a_cpu_do_not_depend_on_the_order_of_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(40, 512, generator=generator, requires_grad=True)
    rows = torch.randint(40, (20_000,), generator=generator)
    weights = torch.randn(len(rows), 512, generator=generator)
    found: list[torch.Tensor] = []
    with launch_engine("single", **CPU_RUN, num_threads=2):
        for _ in range(4):
            table.grad = None
            (table[rows] * weights).sum().backward()
            assert table.grad is not None
            found.append(table.grad)
    assert all(torch.equal(gradient, found[0]) for gradient in found)
