"""Number formats of the forward pass."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

_AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def usable_precision(wish: str, device: torch.device) -> str:
    """The precision to use: the one wished for, but fp32 where a CPU was asked for fp16.

    A CPU multiplies fp16 matrices some 180 times slower than fp32 ones.
    """
    return "fp32" if wish == "fp16" and device.type == "cpu" else wish


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Context in which a forward pass runs; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_AUTOCAST_TYPES[precision])
