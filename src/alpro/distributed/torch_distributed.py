"""``torch.distributed`` backend, for jobs under ``torchrun``."""

import os
import socket
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor

from alpro.errors import InputError, RunError
from alpro.launchers import LAUNCHER_REMEDY, number_in, value_of

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_MAX_PORT = 65535
_PAUSE = 0.02  # seconds between two looks into the store
_PATIENCE = timedelta(days=30)  # of a collective; `hang_timeout` ends hangs earlier


class TorchCommunicator:
    """:class:`.multi_process.Communicator` of PyTorch: Gloo for the CPU, NCCL for GPUs."""

    def __init__(self) -> None:
        """Read rank and world size from the launcher's variables.

        Raises:
            InputError: they are not set.
        """
        missing = [name for name in VARIABLES if value_of(name) is None]
        if missing:
            size = value_of("WORLD_SIZE")
            alone = f" For one process, unset WORLD_SIZE, which is {size}." if size else ""
            raise InputError(
                "engine: torch needs a launcher. The environment lacks "
                f"{', '.join(missing)}; torchrun --nproc_per_node N sets them.{alone}"
            )
        self._master = check_master()
        self.rank = int(os.environ["RANK"])
        self.size = int(os.environ["WORLD_SIZE"])
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.local_size = int(os.environ["LOCAL_WORLD_SIZE"])
        self._end: torch.cuda.Event | None = None

    def connect(self, device: torch.device) -> None:
        """Join the process group on this process's device."""
        on_gpu = device.type == "cuda"
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=self._store(),
            rank=self.rank,
            world_size=self.size,
            timeout=_PATIENCE,
            device_id=device if on_gpu else None,
        )

    def _store(self) -> torch.distributed.Store:
        """Connect to the store for the rendezvous of this start."""
        # torchrun keeps one store over restarts, in which PyTorch 2.13 does not separate the
        # addresses of one start from those of another.
        keeps_one = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        host, port = self._master
        try:
            store = torch.distributed.TCPStore(
                host, port, is_master=self.rank == 0 and not keeps_one, wait_for_workers=False
            )
        except torch.distributed.DistError as error:
            reason = str(error).partition("\n")[0]
            place = f"port {port} of {host} (MASTER_PORT, MASTER_ADDR)"
            raise RunError(f"rank 0 cannot be met at {place}: {reason}") from error
        if not keeps_one:
            return store
        name = name_start(store, rank=self.rank, size=self.size)
        return torch.distributed.PrefixStore(name, store)

    def sum_(self, tensor: Tensor) -> None:
        torch.distributed.all_reduce(tensor)
        self._note(tensor)

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        # All-gather needs equal shapes: pad to the longest, and cut afterwards.
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(gathered, padded)
        all_rows = torch.cat([part[:n] for part, n in zip(gathered, counts, strict=True)])
        self._note(all_rows)
        return all_rows

    def broadcast_(self, tensor: Tensor) -> None:
        torch.distributed.broadcast(tensor, src=0)
        self._note(tensor)

    def gather_objects(self, value: T) -> list[T]:
        gathered: list[T] = [value] * self.size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def _note(self, tensor: Tensor) -> None:
        """Record the end of a collective in the GPU's queue."""
        if tensor.is_cuda:
            self._end = torch.cuda.Event()
            self._end.record()

    def is_finished(self) -> bool:
        return self._end is None or self._end.query()

    def close(self) -> None:
        torch.distributed.destroy_process_group()


def name_start(store: torch.distributed.Store, *, rank: int, size: int) -> str:
    """Agree on a name for this start, through a store with keys of earlier starts."""
    # Each rank asks with a random number, so that no answer of an earlier start fits.
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"asks {rank}", own)
        name = store.get(f"answer to {own}").decode()
        store.set(f"{name} reached {rank}", "")
        return name
    # Rank 0 answers all numbers, those of ended processes too, until every rank has its answer.
    missing = set(range(1, size))
    while missing:
        for asking in [one for one in missing if store.check([f"asks {one}"])]:
            store.set(f"answer to {store.get(f'asks {asking}').decode()}", own)
        missing = {one for one in missing if not store.check([f"{own} reached {one}"])}
        if missing:
            time.sleep(_PAUSE)
    return own


def check_master() -> tuple[str, int]:
    """Return host and port of the rendezvous.

    Raises:
        InputError: the host is unknown, or the port is not one.
    """
    host, port = os.environ["MASTER_ADDR"], number_in("MASTER_PORT")
    if port is None or port > _MAX_PORT:
        problem = f"MASTER_PORT is {os.environ['MASTER_PORT']!r} in the environment, not a port"
        raise InputError(f"{problem} (0 to {_MAX_PORT}). {LAUNCHER_REMEDY}")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"MASTER_ADDR is {host!r} in the environment, but there is no such host: {reason}. Set "
            "it to the host of rank 0."
        ) from error
    return host, port
