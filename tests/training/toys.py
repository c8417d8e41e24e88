"""A task so small that its numbers can be computed by hand, and a trainer around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alpro.datasets.batch_samplers import SamplerSegment
from alpro.datasets.decoding import FrameSelector, Video
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import UnreadableVideo
from alpro.distributed.engine import Engine, SingleProcess
from alpro.training.checkpoints import CheckpointWriter
from alpro.training.faults import NonfiniteGuard, UnreadableVideoLog
from alpro.training.objective import Objective, TrainingData, TrainingPlan
from alpro.training.reporting import Reporter
from alpro.training.run_directory import RunDirectory
from alpro.training.train_state import seed_everything
from alpro.training.trainer import Trainer
from tests.factories import CPU, FakeDecoder

TIMINGS = ("clips_per_second", "data_wait", "communication")  # differ from run to run
BATCHES_PER_EPOCH = 3


class KilledError(Exception):
    """Stands for whatever ends a run early."""


class DyingDecoder(FakeDecoder):
    """Dies after some reads."""

    def __init__(self, *, last_read: int) -> None:
        super().__init__()
        self.last_read = last_read

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        if self.reads.total() == self.last_read:
            raise KilledError
        return super().read(video, select, preprocessing=preprocessing)


@dataclass
class ToyBatch:
    """Inputs (B, 4) and targets (B,)."""

    inputs: Tensor
    targets: Tensor
    video_ids: list[str]
    unreadable: list[UnreadableVideo]

    def to(self, device: torch.device) -> ToyBatch:  # noqa: ARG002
        return self


def toy_batch(number: int, *, size: int = 2) -> ToyBatch:
    """A batch that depends on its number only."""
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(size, 4, generator=generator)
    return ToyBatch(inputs, inputs.sum(dim=1), [f"v{number}.{i}" for i in range(size)], [])


class ToyTask(Objective):
    """Regression with dropout: the loss depends on the generator's state."""

    def __init__(self, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(dropout), nn.Linear(3, 1))

    def forward(self, batch: ToyBatch) -> dict[str, Tensor]:
        error = self.model(batch.inputs).squeeze(1) - batch.targets
        return {"loss": error.square().mean(), "absolute": error.abs().mean()}

    @torch.no_grad()
    def evaluate(self, data: ToyBatch) -> dict[str, float]:
        self.model.eval()
        loss = float(self(data)["loss"])
        return {"loss": loss, "score": -loss}


def kill_at_batch(number: int) -> Callable[[int], ToyBatch]:
    """Batches as usual up to one that never comes."""

    def batch_or_death(current: int) -> ToyBatch:
        if current == number:
            raise KilledError
        return toy_batch(current)

    return batch_or_death


def make_plan(**changes: Any) -> TrainingPlan:
    values: dict[str, Any] = {
        **{"num_train_steps": 7, "accumulation_steps": 1, "mean_accumulation": False},
        **{"valid_steps": 3, "save_steps": 2, "max_grad_norm": 1.0, "best_metric": "score"},
        **{"precision": "fp32", **changes},
    }
    return TrainingPlan(**values)


class CountingSampler:
    """Numbers its batches of two samples."""

    batches_per_epoch = BATCHES_PER_EPOCH
    examples_per_epoch = 2 * BATCHES_PER_EPOCH

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def resume(self, done: Sequence[SamplerSegment]) -> CountingSampler:
        return CountingSampler(sum(segment.num_batches for segment in done))

    def __iter__(self) -> Iterator[list[Any]]:
        return ([number] for number in count(self.first))


def train(
    root: Path,
    *,
    plan: TrainingPlan,
    batch: Callable[[int], Any] = toy_batch,
    task: Objective | None = None,
    validate: Callable[[Objective], dict[str, float]] = lambda task: task.evaluate(toy_batch(1000)),
    optimizer: Callable[[Any], torch.optim.Optimizer] = torch.optim.AdamW,
    learning_rate: Callable[[int], float] = lambda step: 0.1 / step,
    max_unreadable: float = 0.5,
    on_nonfinite: str = "stop",
    engine: Engine | None = None,
    log_interval: int = 1,
) -> Trainer:
    """Train a task in a folder, as a process would that has just started."""
    seed_everything(3)
    task = task or ToyTask()
    output = RunDirectory(root, rank=0)
    output.log.mkdir(parents=True, exist_ok=True)

    data = TrainingData(
        CountingSampler(),
        lambda sampler: (batch(first) for (first,) in sampler),
        num_samples=2 * BATCHES_PER_EPOCH,
    )
    with Reporter(output, total_steps=plan.last_step, log_interval=log_interval) as reporter:
        trainer = Trainer(
            task,
            engine=engine or SingleProcess(CPU, scale_loss=False),
            optimizer=optimizer(task.model.parameters()),
            learning_rate=learning_rate,
            data=data,
            validate=partial(validate, task),
            plan=plan,
            output=output,
            checkpoints=CheckpointWriter(output, keep=0),
            ledger=UnreadableVideoLog(
                output,
                max_fraction=max_unreadable,
                samples_per_epoch=data.sampler.examples_per_epoch,
            ),
            guard=NonfiniteGuard(output, policy=on_nonfinite, num_steps=plan.num_train_steps),
            reporter=reporter,
        )
        trainer.fit()
    return trainer


def metric_lines(root: Path) -> list[dict[str, Any]]:
    """Records of a run's metrics file, without what depends on the machine's speed."""
    lines = (root / "log/metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def assert_same(one: Any, other: Any) -> None:
    """Compare nested states; tensors bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def assert_same_run(one: Path, other: Path) -> None:
    """Two finished runs left the same numbers behind, to the last bit."""
    for name in ("restore.pt", *(f"ckpt/{path.name}" for path in one.glob("ckpt/*.pt"))):
        states = [torch.load(root / name, weights_only=True) for root in (one, other)]
        assert_same(*states)
    assert {p.name for p in one.glob("ckpt/*")} == {p.name for p in other.glob("ckpt/*")}
    assert metric_lines(one) == metric_lines(other)
