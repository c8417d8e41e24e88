from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from alpro.datasets.video_datasets import TensorBatch


@dataclass
class Batch(TensorBatch):
    frames: Tensor | None
    labels: Tensor
    names: list[str]


def test_only_tensors_move_and_the_batch_keeps_its_class() -> None:
    names = ["a", "b"]
    batch = Batch(torch.zeros(2, 3), torch.tensor([4, 5]), names)
    moved = batch.to("meta")
    assert isinstance(moved, Batch)
    assert moved.frames is not None
    assert (moved.frames.device.type, moved.labels.device.type) == ("meta", "meta")
    assert moved.names is names
    assert batch.labels.device.type == "cpu"


def test_an_absent_tensor_stays_absent() -> None:
    moved = Batch(None, torch.tensor([4]), []).to("meta")
    assert moved.frames is None
    assert moved.labels.device.type == "meta"


def test_every_tensor_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor + 1)  # needs no GPU
    pinned = Batch(torch.zeros(2), torch.tensor([4]), ["a"]).pin_memory()
    assert pinned.frames is not None
    assert (pinned.frames.tolist(), pinned.labels.tolist()) == ([1, 1], [5])
