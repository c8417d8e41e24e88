"""The engine of a run under ``horovodrun``.

Shapes: B rows on this rank, G rows on all ranks together, P parameters.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import horovod.torch as hvd
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from src.distributed.engine import GradientEngine

T = TypeVar("T")


class HorovodEngine(GradientEngine):
    """One Horovod rank.

    Gradients are reduced as one flat fp32 buffer per update, in parameter order. Horovod's own
    ``DistributedOptimizer`` fuses whatever gradients are ready at the moment, which changes the
    order of additions, and with it the last bits, from run to run once there are three ranks.

    Horovod writes into tensors of its own from another thread, which PyTorch forbids for tensors
    made in inference mode; numbers and objects are therefore shared outside of it.
    """

    def __init__(self, device: torch.device, *, scale_loss: bool) -> None:
        super().__init__(device, scale_loss=scale_loss)
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()

    def prepare(self, task: nn.Module, optimizer: Optimizer) -> None:
        """See :meth:`Engine.prepare`."""
        self._take_parameters(optimizer)
        hvd.broadcast_parameters(task.state_dict(), root_rank=0)
        # Not hvd.broadcast_optimizer_state: it makes an update of zero gradients.
        state = hvd.broadcast_object(optimizer.state_dict(), root_rank=0)
        if self.rank:
            optimizer.load_state_dict(state)

    def _reduce_gradients(self) -> None:
        """Average over the ranks; a parameter without a gradient anywhere keeps none."""
        parameters = self._parameters
        present = torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.float32, device=self.device
        )
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([g.reshape(-1).float() for g in gradients] + [present])
        hvd.allreduce_(flat, name="gradients", op=hvd.Average)
        *reduced, present = flat.split([g.numel() for g in gradients] + [len(parameters)])
        for parameter, gradient, share in zip(parameters, reduced, present.tolist(), strict=True):
            if share > 0:
                parameter.grad = gradient.view_as(parameter).to(parameter.dtype)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See :meth:`Engine.all_gather`."""
        return _GatherRows.apply(tensor)

    def sum(self, totals: Mapping[str, float]) -> dict[str, float]:
        """See :meth:`Engine.sum`."""
        names = sorted(totals)
        with torch.inference_mode(False):
            values = torch.tensor([totals[name] for name in names], dtype=torch.float64)
            summed = hvd.allreduce(values, op=hvd.Sum, name="totals." + ".".join(names))
        return dict(zip(names, summed.tolist(), strict=True))

    def gather_objects(self, value: T) -> list[T]:
        """See :meth:`Engine.gather_objects`."""
        with torch.inference_mode(False):
            return hvd.allgather_object(value)

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        hvd.shutdown()


class _GatherRows(torch.autograd.Function):
    """Rows of every rank in rank order.

    The backward of ``hvd.allgather`` averages since Horovod 0.22. Here it sums: averaging the
    summed gradients of all ranks, as the engine does, then gives the gradient of the mean loss.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = hvd.allgather(torch.tensor([len(rows)]), name="gather.counts").tolist()
        ctx.first = sum(counts[: hvd.rank()])
        ctx.count = len(rows)
        return hvd.allgather(rows.contiguous(), name="gather.rows")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        summed = hvd.allreduce(gradient.contiguous(), op=hvd.Sum, name="gather.gradient")
        return summed[ctx.first : ctx.first + ctx.count]


def local_rank() -> int:
    """Number of this process on its machine, which chooses its GPU."""
    return hvd.local_rank()


def start() -> None:
    """Join the job; must run once, before anything else of this module."""
    hvd.init()


def local_size() -> int:
    """Number of processes of the job on this machine."""
    return hvd.local_size()
