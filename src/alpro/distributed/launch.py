"""Engine selection and start-up, from the launcher's environment and the config."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alpro.distributed.engine import Engine, SingleProcess
from alpro.distributed.multi_process import DistributedEngine
from alpro.distributed.watchdog import Watchdog
from alpro.errors import InputError, TerminatedError
from alpro.installation import AbsentPackageError, import_optional
from alpro.launchers import LAUNCHER_REMEDY, LAUNCHERS, number_in, value_of

if TYPE_CHECKING:
    from alpro.distributed.horovod import HorovodCommunicator
    from alpro.distributed.torch_distributed import TorchCommunicator

_START_TIME = 19  # field of /proc/<pid>/stat, counted after the name (proc(5) has it as number 22)
# Engine -> variable that only its launcher sets.
_ENGINES = {"horovod": "HOROVOD_RANK", "torch": "TORCHELASTIC_RUN_ID"}
_SIZES_AND_RANKS = (
    *(("WORLD_SIZE", "RANK"), ("LOCAL_WORLD_SIZE", "LOCAL_RANK")),
    ("HOROVOD_SIZE", "HOROVOD_RANK"),
)
_MAX_SHOWN = 40  # characters of a value


@contextmanager
def launch_engine(
    name: str, *, device: str, precision: str, num_threads: int = 0, hang_timeout: float = 0
) -> Iterator[Engine]:
    """Start the engine, and close it at the end, though not after an error.

    A failed rank that others wait for must end at once, and peers that are gone cannot take part in
    a clean shutdown.

    Args:
        name: ``auto`` (by launcher, else one process), ``single``, ``horovod`` or ``torch``.
        device: ``auto`` (a GPU if available), ``cpu`` or ``cuda``.
        precision: ``fp16`` scales the loss on a GPU.
        num_threads: CPU threads of each process, 0 for an equal share of the machine's cores.
        hang_timeout: seconds without progress after which a process ends; 0 for never.

    Raises:
        InputError: the engine or device is not available.
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
    """Identify the ``torchrun`` that started this process; None of launchers without restarts."""
    if not value_of(_ENGINES["torch"]):
        return None
    # Process ids repeat; with host and start time they are unique.
    parent = os.getppid()
    status = Path(f"/proc/{parent}/stat")  # Linux has it
    text = status.read_text(encoding="utf-8") if status.exists() else ""
    started = text.rpartition(")")[2].split()[_START_TIME : _START_TIME + 1]
    return " ".join([socket.gethostname(), str(parent), *started])


def _start(
    name: str, *, device: str, precision: str, num_threads: int, watchdog: Watchdog | None
) -> Engine:
    # Choose the engine by the launcher's variables.
    check_launcher_variables()
    if name == "auto":  # launchers other than torchrun set WORLD_SIZE, too
        fallback = "torch" if (number_in("WORLD_SIZE") or 1) > 1 else "single"
        started = (engine for engine, variable in _ENGINES.items() if value_of(variable))
        name = next(started, fallback)
    communicator: HorovodCommunicator | TorchCommunicator | None = None
    if name == "single":
        refuse_to_be_one_of_several()
    else:
        communicator = _horovod() if name == "horovod" else _torch()

    # Give each process a GPU of its own, or its share of the cores.
    chosen = choose_device(device, index=communicator.local_rank if communicator else 0)
    processes = communicator.local_size if communicator else 1
    if num_threads:
        torch.set_num_threads(num_threads)
    elif processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    _make_repeatable(chosen)
    scale_loss = precision == "fp16" and chosen.type == "cuda"
    if communicator is None:
        return SingleProcess(chosen, scale_loss=scale_loss, watchdog=watchdog)

    # Rendezvous: while it waits, the watchdog must blame the missing processes.
    if watchdog is not None:
        watchdog.waits_for_others = True
    communicator.connect(chosen)
    if watchdog is not None:
        watchdog.waits_for_others = False
    return DistributedEngine(communicator, chosen, scale_loss=scale_loss, watchdog=watchdog)


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


def choose_device(wish: str, *, index: int) -> torch.device:
    """Return the device of a process by its number on this machine."""
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


def _make_repeatable(device: torch.device) -> None:
    # Threads on a CPU add up gradients of indexed rows in any order: two runs would differ within
    # three updates.
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Filling memory before it is written costs time and changes nothing.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def check_launcher_variables() -> None:
    """Check the variables of torchrun and horovodrun; empty ones count as unset.

    Raises:
        InputError: a value is not a number, or contradicts another one.
    """
    # Each must be a whole number, and each rank below its number of processes.
    for name in chain(*_SIZES_AND_RANKS):
        if value_of(name) is not None and number_in(name) is None:
            problem = f"{name} is {os.environ[name][:_MAX_SHOWN]!r} in the environment"
            raise InputError(f"{problem}, not a whole number. {LAUNCHER_REMEDY}")
    for size_name, rank_name in _SIZES_AND_RANKS:
        size, rank = number_in(size_name), number_in(rank_name)
        if size == 0 or (size is not None and rank is not None and rank >= size):
            place = "" if rank is None else f" and {rank_name} is {rank}"
            raise InputError(
                f"{size_name} is {size}{place} in the environment; ranks count from 0 to "
                f"{size_name} - 1. {LAUNCHER_REMEDY}"
            )
    # A rank without a size is left over from another job.
    for name in ("RANK", "LOCAL_RANK"):
        is_alone = value_of("WORLD_SIZE") is None and value_of("HOROVOD_SIZE") is None
        if is_alone and value_of(name) is not None:
            problem = f"{name} is {os.environ[name]} in the environment, but WORLD_SIZE is not set"
            raise InputError(f"{problem}. {LAUNCHER_REMEDY}")


def refuse_to_be_one_of_several() -> None:
    """Refuse a single-process run under a launcher of several, which would share its output.

    Raises:
        InputError: the environment says that there are several.
    """
    for launcher in LAUNCHERS:
        if launcher.num_processes > 1:
            raise InputError(
                "engine: the environment says that this is one of several processes of "
                f"{launcher.name} ({launcher.size} is {os.environ[launcher.size]}), which a run of "
                "one process cannot be. Use horovodrun -np N or torchrun --nproc_per_node N, with "
                f"engine auto; or, for runs apart from each other, `unset {launcher.size}`."
            )
