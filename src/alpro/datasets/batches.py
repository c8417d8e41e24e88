"""Base of all batches, which move to a device, and the stacking of their frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class UnreadableVideo:
    """A video that gave no frames, and why."""

    video_id: str
    reason: str


@dataclass
class TensorBatch:
    """Base of dataclasses whose tensors are moved together; other fields stay as they are."""

    def to(self, device: torch.device | str) -> Self:
        """Copy the tensors to a device, without waiting where they are pinned."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """Move the tensors to page-locked memory (called by the loader)."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: change(tensor) for name, tensor in tensors.items()})


def stack_frames(arrays: Sequence[np.ndarray]) -> Tensor:
    """Stack arrays of one shape."""
    return torch.from_numpy(np.stack(arrays))
