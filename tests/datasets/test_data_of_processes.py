"""What the processes of a training job read: of retrieval, question answering and pretraining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alpro.configs.loading import load_config
from alpro.datasets.batch_samplers import SamplerSegment
from alpro.datasets.dataloader import make_loader
from alpro.datasets.video_datasets import TrainingSample
from alpro.distributed.engine import SingleProcess
from alpro.experiment.experiment import Experiment
from alpro.tasks.pretraining.config import PretrainConfig
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.retrieval.config import RetrievalConfig
from tests.factories import CPU, FakeDecoder, TinyExperiment
from tests.pretraining_factories import PretrainExperiment
from tests.question_factories import QaExperiment

pytest.importorskip("torchvision")  # moves the pixels of augmented frames

NUM_VIDEOS = 12
BATCH_SIZE = 2
RANDOM = {"frm_sampling_strategy": "rand", "augmentation": "randaugment"}
CHANGES: dict[str, dict[str, Any]] = {
    "retrieval": RANDOM,
    "questions": {**RANDOM, "max_n_example_per_group": 4},
    "pretraining": {**RANDOM, "mlm_probability": 0.4},
}

CONFIGS: dict[str, Any] = {
    **{"retrieval": RetrievalConfig, "questions": QaConfig, "pretraining": PretrainConfig},
}

Key = tuple[int, int, str]
"""Epoch and index in its set, with the name of the video or image: sets count alike."""


@dataclass
class Read:
    """A batch, and the samples that it was made of."""

    samples: list[TrainingSample[Any]]
    batch: Any

    @property
    def keys(self) -> list[Key]:
        return [(*sample.key, sample.item.video_id) for sample in self.samples]

    @property
    def frames(self) -> list[bytes]:
        return [sample.frames.tobytes() for sample in self.samples]


Reader = Callable[..., list[Read]]
"""Batches that a process reads: (count, rank=, size=, done=, seed=)."""


@pytest.fixture(params=["retrieval", "questions", "pretraining"])
def read(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """What a task reads of videos that all show the same."""
    monkeypatch.setattr("alpro.experiment.data.make_decoder", lambda *_, **__: FakeDecoder())
    monkeypatch.setattr("alpro.experiment.data.make_loader", loader_with_samples)
    experiments: dict[str, Callable[[], TinyExperiment]] = {
        "retrieval": lambda: TinyExperiment(tmp_path, num_train=NUM_VIDEOS),
        "questions": lambda: QaExperiment(tmp_path, num_train=NUM_VIDEOS),
        "pretraining": lambda: PretrainExperiment(
            tmp_path, num_train=NUM_VIDEOS, num_train_images=NUM_VIDEOS
        ),
    }
    experiment = experiments[request.param]()
    for folder, ending in (("videos", "mp4"), ("images", "png")):
        for path in (tmp_path / folder).glob(f"*.{ending}"):
            path.write_bytes((tmp_path / folder / f"train0.{ending}").read_bytes())
    changes = {"train_batch_size": BATCH_SIZE, **CHANGES[request.param]}

    def batches(
        count: int, *, rank: int, size: int, done: Sequence[SamplerSegment] = (), seed: int = 42
    ) -> list[Read]:
        arguments = experiment.arguments(**changes, seed=seed)
        engine = SingleProcess(CPU, scale_loss=False)
        engine.rank, engine.size = rank, size
        resolved: Any = load_config(CONFIGS[request.param], arguments)
        found = Experiment(resolved, engine=engine).task.data.training().start(done)
        return list(islice(found, count))

    return batches


def loader_with_samples(dataset: Any, *, collate: Callable[..., Any], **options: Any) -> Any:
    return make_loader(dataset, collate=lambda some: Read(some, collate(some)), **options)


def keys_of(reads: Sequence[Read]) -> list[Key]:
    return [key for one in reads for key in one.keys]


def frames_of(reads: Sequence[Read]) -> list[bytes]:
    return [frames for one in reads for frames in one.frames]


def assert_same(some: Sequence[Read], others: Sequence[Read]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.keys == other.keys
        assert one.frames == other.frames
        for name, value in vars(one.batch).items():
            same = getattr(other.batch, name)
            assert torch.equal(value, same) if isinstance(value, Tensor) else value == same, name


def test_a_seed_repeats_order_and_augmentation(read: Reader) -> None:
    first, again = (read(10, rank=1, size=2) for _ in range(2))
    assert_same(first, again)
    other = read(10, rank=1, size=2, seed=43)
    assert keys_of(other) != keys_of(first)
    assert set(frames_of(other)) != set(frames_of(first))


def test_processes_read_different_examples_changed_differently(read: Reader) -> None:
    """All videos show the same: their frames differ by what is drawn for each sample."""
    shards = [read(8, rank=rank, size=3) for rank in range(3)]
    keys = [key for shard in shards for key in keys_of(shard)]
    frames = [frames for shard in shards for frames in frames_of(shard)]
    assert len(set(keys)) == len(keys) == 3 * 8 * BATCH_SIZE
    assert len(set(frames)) > 0.9 * len(frames)


def test_epochs_differ_in_order_and_augmentation(read: Reader) -> None:
    epochs: list[dict[str, bytes]] = [{}, {}]
    for one in read(40, rank=0, size=1):
        for (epoch, _, name), frames in zip(one.keys, one.frames, strict=True):
            if epoch < len(epochs):
                epochs[epoch][name] = frames
    both = epochs[0].keys() & epochs[1].keys()
    assert len(both) >= NUM_VIDEOS
    assert list(epochs[0]) != list(epochs[1])
    changed = [name for name in both if epochs[0][name] != epochs[1][name]]
    assert len(changed) > 0.8 * len(both)


def test_a_resumed_process_reads_on(read: Reader) -> None:
    whole = read(12, rank=1, size=2)
    assert_same(read(5, rank=1, size=2, done=[SamplerSegment(2, 7)]), whole[7:])


def test_more_processes_read_what_fewer_have_left(read: Reader) -> None:
    before = [read(1, rank=rank, size=2) for rank in range(2)]
    after = [read(1, rank=rank, size=4, done=[SamplerSegment(2, 1)]) for rank in range(4)]
    keys = [key for shard in (*before, *after) for key in keys_of(shard)]
    assert len(keys) == len(set(keys)) == NUM_VIDEOS
    assert {epoch for epoch, *_ in keys} == {0}
