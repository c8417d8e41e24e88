"""Counts the memory of activations, which CPUs do not report."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


class Held:
    """Bytes of what some modules have put out and the autograd graph, or who else, still holds."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.now = 0
        self.most = 0
        for module in modules:
            module.register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, output: Tensor) -> None:  # noqa: ARG002
        storage = output.untyped_storage()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, num_bytes: int) -> None:
        self.now -= num_bytes
