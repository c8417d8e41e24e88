"""Choosing and starting the engine from the launcher's environment and the user's wishes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alpro.distributed.engine import Engine, SingleProcess
from alpro.distributed.environment import check_launcher_variables, refuse_to_be_one_of_several
from alpro.distributed.multi_process import DistributedEngine
from alpro.distributed.watchdog import Watchdog
from alpro.errors import InputError, TerminatedError
from alpro.launchers import number_in, value_of
from alpro.optional_packages import AbsentPackageError, import_optional

if TYPE_CHECKING:
    from alpro.distributed.horovod import HorovodCommunicator
    from alpro.distributed.torch_distributed import TorchCommunicator

_START_TIME = 19  # field of /proc/<pid>/stat, counted after the name (proc(5) has it as number 22)
# Engine -> variable of its launcher, which tells it from others.
_ENGINES = {"horovod": "HOROVOD_RANK", "torch": "TORCHELASTIC_RUN_ID"}


@contextmanager
def launch_engine(
    name: str, *, device: str, precision: str, num_threads: int = 0, hang_timeout: float = 0
) -> Iterator[Engine]:
    """Start the engine, and leave the job in order at the end.

    After an error it is left as it is: a rank that others wait for must end at once, and those that
    it cannot talk to any more cannot say good-bye.

    Args:
        name: ``auto`` (that of the launcher, else one process), ``single``, ``horovod`` or
            ``torch``.
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        precision: ``fp16`` scales the loss on a GPU.
        num_threads: CPU threads of each process, 0 to share the cores among a machine's processes.
        hang_timeout: seconds without progress after which a process ends; 0 for never.

    Raises:
        InputError: if what is asked for is not there.
    """
    # Gradients of near-certain matches become denormals, which CPUs compute up to 100 times slower.
    torch.set_flush_denormal(True)
    watchdog = Watchdog(hang_timeout) if hang_timeout else None
    try:
        engine = _start(
            name, device=device, precision=precision, num_threads=num_threads, watchdog=watchdog
        )
        try:
            yield engine
        except TerminatedError:
            engine.close()
            raise
        engine.close()
    finally:
        if watchdog is not None:
            watchdog.close()


def launcher_on_this_machine() -> str | None:
    """A name for the ``torchrun`` that has started this process; it may do so several times.

    None under other launchers, and without one: they start processes once.
    """
    if not value_of(_ENGINES["torch"]):
        return None
    parent = os.getppid()
    status = Path(f"/proc/{parent}/stat")  # Linux has it
    text = status.read_text(encoding="utf-8") if status.exists() else ""
    started = text.rpartition(")")[2].split()[_START_TIME : _START_TIME + 1]
    return " ".join([socket.gethostname(), str(parent), *started])


def _start(
    name: str, *, device: str, precision: str, num_threads: int, watchdog: Watchdog | None
) -> Engine:
    check_launcher_variables()
    if name == "auto":
        name = _engine_of_launcher()
    if name == "single":
        refuse_to_be_one_of_several()
        chosen = _choose_device(device, index=0)
        _set_threads(num_threads, processes=1)
        _make_repeatable(chosen)
        return SingleProcess(chosen, scale_loss=_scales_loss(precision, chosen), watchdog=watchdog)
    communicator = _horovod() if name == "horovod" else _torch()
    chosen = _choose_device(device, index=communicator.local_rank)
    _set_threads(num_threads, processes=communicator.local_size)
    _make_repeatable(chosen)
    if watchdog is not None:
        watchdog.waits_for_others = True
    communicator.connect(chosen)
    if watchdog is not None:
        watchdog.waits_for_others = False
    return DistributedEngine(
        communicator, chosen, scale_loss=_scales_loss(precision, chosen), watchdog=watchdog
    )


def _engine_of_launcher() -> str:
    """The engine that fits the environment; WORLD_SIZE is also what others than torchrun set."""
    for engine, variable in _ENGINES.items():
        if value_of(variable):
            return engine
    return "torch" if (number_in("WORLD_SIZE") or 1) > 1 else "single"


def _horovod() -> "HorovodCommunicator":
    _refuse_launcher_of("torch", engine="horovod")
    try:
        module = import_optional("alpro.distributed.horovod", package="horovod")
    except AbsentPackageError as error:
        raise InputError(
            f"engine: {error}. Install Horovod with env/install_pkg.sh, start the run with "
            "torchrun, or run one process."
        ) from error
    communicator: HorovodCommunicator = module.HorovodCommunicator()
    return communicator


def _torch() -> "TorchCommunicator":
    _refuse_launcher_of("horovod", engine="torch")
    from alpro.distributed.torch_distributed import TorchCommunicator

    return TorchCommunicator()


def _refuse_launcher_of(other: str, *, engine: str) -> None:
    if value_of(_ENGINES[other]) and not value_of(_ENGINES[engine]):
        launchers = {"horovod": "horovodrun", "torch": "torchrun"}
        raise InputError(
            f"engine: {engine} was asked for, but this process was started by {launchers[other]}. "
            f"Start the run with {launchers[engine]}, or leave engine at auto."
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


def _make_repeatable(device: torch.device) -> None:
    """On a CPU, the same steps give the same numbers, with several threads as well.

    Otherwise threads add up the gradients of what was indexed in any order, and two runs part
    within three updates.
    """
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling memory before it is written costs time and changes nothing.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _scales_loss(precision: str, device: torch.device) -> bool:
    return precision == "fp16" and device.type == "cuda"
