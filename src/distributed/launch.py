"""Choosing and starting the engine from the launcher's environment and the user's wishes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from src.distributed.engine import Engine, SingleProcess
from src.errors import InputError

# Number of processes of a job, as launchers tell their processes -> launcher.
_LAUNCHERS = {
    "WORLD_SIZE": "torchrun",
    "HOROVOD_SIZE": "horovodrun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
}


@contextmanager
def launch_engine(
    name: str, *, device: str, precision: str, num_threads: int = 0
) -> Iterator[Engine]:
    """Start the engine, and leave the job in order at the end.

    Args:
        name: ``auto`` (Horovod under ``horovodrun``, else one process), ``single`` or ``horovod``.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        precision: ``fp16`` scales the loss on a GPU.
        num_threads: CPU threads of each process, 0 to share the cores among a machine's processes.

    Raises:
        InputError: if what is asked for is not there.
    """
    # Gradients of near-certain matches become denormals, which CPUs compute up to 100 times slower.
    torch.set_flush_denormal(True)
    engine = _start(name, device=device, precision=precision, num_threads=num_threads)
    try:
        yield engine
    finally:
        engine.close()


def _start(name: str, *, device: str, precision: str, num_threads: int) -> Engine:
    if name == "auto":
        name = "horovod" if "HOROVOD_RANK" in os.environ else "single"
    if name == "single":
        _refuse_other_launchers()
        chosen = _choose_device(device, index=0)
        _set_threads(num_threads, processes=1)
        return SingleProcess(chosen, scale_loss=_scales_loss(precision, chosen))
    try:
        from src.distributed import horovod
    except ImportError as error:
        raise InputError(
            f"engine: Horovod cannot be imported ({error}). Install it with env/install_pkg.sh, or "
            "run one process without horovodrun."
        ) from error
    horovod.start()
    chosen = _choose_device(device, index=horovod.local_rank())
    _set_threads(num_threads, processes=horovod.local_size())
    return horovod.HorovodEngine(chosen, scale_loss=_scales_loss(precision, chosen))


def _refuse_other_launchers() -> None:
    """N processes that do not know of each other would overwrite each other's output."""
    for variable, launcher in _LAUNCHERS.items():
        if int(os.environ.get(variable, "1")) > 1:
            raise InputError(
                "engine: the environment says that this is one of several processes of "
                f"{launcher} ({variable} is {os.environ[variable]}), which a run with engine "
                "auto or single cannot be. Use horovodrun -np N, with engine auto or horovod."
            )


def _choose_device(wish: str, *, index: int) -> torch.device:
    available = torch.cuda.is_available()
    if wish == "cuda" and not available:
        raise InputError("device: cuda was asked for, but PyTorch sees no GPU. Use --device cpu.")
    if wish == "cpu" or not available:
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise InputError(
            f"device: process {index} of this machine has no GPU of its own, there are "
            f"{torch.cuda.device_count()}. Start at most that many processes a machine, or use "
            "--device cpu."
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _set_threads(wish: int, *, processes: int) -> None:
    if wish:
        torch.set_num_threads(wish)
    elif processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _scales_loss(precision: str, device: torch.device) -> bool:
    return precision == "fp16" and device.type == "cuda"
