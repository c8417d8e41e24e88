"""Environments that launchers, templates and clusters leave around a process."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from alpro.distributed.engine import SingleProcess
from alpro.distributed.launch import launch_engine
from alpro.distributed.torch_distributed import TorchCommunicator, check_master
from alpro.errors import InputError, RunError
from alpro.launchers import LAUNCHERS, process_name
from tests.distributed.jobs import free_port, launcher_variables

LOCAL = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", **LOCAL}


@pytest.fixture(autouse=True)
def _of_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in {*(one.size for one in LAUNCHERS), *(one.rank for one in LAUNCHERS), *LOCAL}:
        monkeypatch.delenv(name, raising=False)


def start(variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> type[object]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with launch_engine("auto", device="cpu", precision="fp32") as engine:
        return type(engine)


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": ""},
        {"WORLD_SIZE": "  "},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"WORLD_SIZE": "", "RANK": "", "LOCAL_RANK": "", "MASTER_ADDR": "", "MASTER_PORT": ""},
        {"TORCHELASTIC_RUN_ID": "", "HOROVOD_RANK": ""},
        {"HOROVOD_SIZE": "", "OMPI_COMM_WORLD_SIZE": "", "PMI_SIZE": "", "SLURM_NTASKS": ""},
        {"MASTER_PORT": "tcp://10.0.0.1:80"},  # of a Kubernetes service called master
        {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # sbatch and salloc
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        {"SLURM_NTASKS": "4(x2)", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
        {"PMI_SIZE": "one", "PMI_RANK": "0"},
        {"LSB_DJOB_NUMPROC": "8"},  # slots of a job, not processes
        {"SM_HOSTS": '["algo-1"]', "SM_CURRENT_HOST": "algo-1", "SM_NUM_GPUS": "0"},
    ],
    ids=str,
)
def test_one_process_runs(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(variables, monkeypatch) is SingleProcess
    assert process_name() == ""


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WORLD_SIZE": "auto"}, "WORLD_SIZE is 'auto' in the environment, not a whole number"),
        ({"WORLD_SIZE": "${N}"}, "WORLD_SIZE is '${N}'"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE is '2.0'"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE is '-1'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
        ({"WORLD_SIZE": "\u0663"}, "WORLD_SIZE is '\u0663'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0 in the environment; ranks count from 0"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "WORLD_SIZE is 2 and RANK is 2"),
        ({"WORLD_SIZE": "1", "RANK": "1"}, "WORLD_SIZE is 1 and RANK is 1"),
        ({"WORLD_SIZE": "2", "RANK": "x"}, "RANK is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK is '-1'"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK is '-1'"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is 0 in the environment, but WORLD_SIZE is not set"),
        ({"RANK": "1"}, "RANK is 1 in the environment, but WORLD_SIZE is not set"),
        ({**TORCHRUN, "LOCAL_RANK": "1"}, "LOCAL_WORLD_SIZE is 1 and LOCAL_RANK is 1"),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "two"}, "HOROVOD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "lacks RANK, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        (  # PyTorchJob, without torchrun
            {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a-master-0", "MASTER_PORT": "23456"},
            "lacks LOCAL_RANK, LOCAL_WORLD_SIZE; torchrun --nproc_per_node N sets them",
        ),
        (
            {**TORCHRUN, "MASTER_ADDR": "localhost", "MASTER_PORT": "tcp://10.0.0.1:80"},
            "MASTER_PORT is 'tcp://10.0.0.1:80' in the environment, not a port",
        ),
        ({**TORCHRUN, "MASTER_ADDR": "localhost", "MASTER_PORT": "65536"}, "not a port"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError) as caught:
        start(variables, monkeypatch)
    assert told in str(caught.value)
    assert "torchrun --nproc_per_node N" in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "launcher", "name"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"}, "mpirun", "rank 1"),
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, "mpiexec", "rank 2"),
        ({"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_RANK": "2"}, "mpirun", "rank 2"),
        ({"JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "0"}, "jsrun", "rank 0"),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, "srun", "rank 0"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, "srun", "rank 3"),
        ({"SM_HOSTS": '["algo-1","algo-2"]', "SM_CURRENT_HOST": "algo-2"}, "SageMaker", "algo-2"),
    ],
)
def test_one_of_several_is_refused_by_its_launcher(
    variables: dict[str, str], launcher: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=f"one of several processes of {launcher} ") as caught:
        start(variables, monkeypatch)
    size = next(iter(variables))
    assert f"`unset {size}`" in str(caught.value)
    assert name in process_name()


def test_a_master_that_is_no_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(host: str, _port: int) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known, {host}")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("MASTER_ADDR", "node-1.typo")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(InputError, match="MASTER_ADDR is 'node-1.typo' .* no such host: Name or"):
        check_master()


def test_a_name_that_can_be_no_hosts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "a" * 70 + ".b")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(InputError, match="no such host"):
        check_master()


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for name, value in launcher_variables(0, 2, port=port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    with socket.create_server(("", port)):
        communicator = TorchCommunicator()
        with pytest.raises(RunError, match=f"cannot be met at port {port} of .*EADDRINUSE"):
            communicator._store()  # noqa: SLF001
