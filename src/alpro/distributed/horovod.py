"""Horovod backend, for jobs under ``horovodrun``."""

from collections.abc import Sequence
from typing import TypeVar

import horovod.torch as hvd
import torch
from torch import Tensor

T = TypeVar("T")


class HorovodCommunicator:
    """The calls of `Communicator` by Horovod, which block until they are complete."""

    def __init__(self) -> None:
        """Join the job; once per process."""
        hvd.init()
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.local_size: int = hvd.local_size()

    def connect(self, device: torch.device) -> None:
        """Do nothing: Horovod detects the device of each tensor."""

    def sum_(self, tensor: Tensor) -> None:
        hvd.allreduce_(tensor, name="sum", op=hvd.Sum)

    def gather_rows(
        self,
        rows: Tensor,
        counts: Sequence[int],  # noqa: ARG002  # Horovod exchanges them itself
    ) -> Tensor:
        return hvd.allgather(rows, name="rows")

    def broadcast_(self, tensor: Tensor) -> None:
        hvd.broadcast_(tensor, root_rank=0, name="broadcast")

    def gather_objects(self, value: T) -> list[T]:
        return hvd.allgather_object(value, name="objects")

    def is_finished(self) -> bool:
        return True

    def close(self) -> None:
        hvd.shutdown()
