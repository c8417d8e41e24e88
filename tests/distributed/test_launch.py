from __future__ import annotations

import sys

import pytest
import torch

from src.distributed.engine import SingleProcess
from src.distributed.launch import launch_engine
from src.errors import InputError


@pytest.mark.parametrize("name", ["auto", "single"])
def test_one_process_by_default(name: str) -> None:
    with launch_engine(name, device="cpu", precision="fp16", num_threads=1) as engine:
        assert isinstance(engine, SingleProcess)
        assert engine.device == torch.device("cpu")
        assert engine.state_dict() == {}  # no loss scale on a CPU
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("name", "variable", "launcher"),
    [
        ("auto", "WORLD_SIZE", "torchrun"),
        ("single", "WORLD_SIZE", "torchrun"),
        ("single", "HOROVOD_SIZE", "horovodrun"),
        ("auto", "OMPI_COMM_WORLD_SIZE", "mpirun"),
    ],
)
def test_processes_that_would_not_know_of_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, variable: str, launcher: str
) -> None:
    monkeypatch.setenv(variable, "2")
    with (
        pytest.raises(InputError, match=rf"{launcher} \({variable} is 2\)"),
        launch_engine(name, device="cpu", precision="fp32"),
    ):
        pass
    monkeypatch.setenv(variable, "1")
    with launch_engine(name, device="cpu", precision="fp32") as engine:
        assert engine.size == 1


@pytest.mark.parametrize("name", ["horovod", "auto"])
def test_horovod_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOROVOD_RANK", "0")
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    monkeypatch.delitem(sys.modules, "src.distributed.horovod", raising=False)
    monkeypatch.delattr("src.distributed.horovod", raising=False)
    with (
        pytest.raises(InputError, match="engine: Horovod cannot be imported.*install_pkg.sh"),
        launch_engine(name, device="cpu", precision="fp32"),
    ):
        pass


@pytest.mark.gpu
def test_the_gpu_is_chosen_by_itself() -> None:
    with launch_engine("auto", device="auto", precision="fp16") as engine:
        assert engine.device == torch.device("cuda", 0)
        assert engine.state_dict()["scale"] > 1
    with launch_engine("auto", device="cpu", precision="fp32") as engine:
        assert engine.device == torch.device("cpu")
