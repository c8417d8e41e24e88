from __future__ import annotations

import gc
import multiprocessing
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import Dataset

from alpro.datasets.batch_samplers import ResumableBatchSampler, SamplerSegment
from alpro.datasets.dataloader import ConcatDataset, make_loader
from alpro.errors import InputError

ROOT = Path(__file__).parents[2]
Key = tuple[int, int]


class Echo(Dataset[tuple[str, int, int]]):
    """A dataset whose samples say where they come from."""

    def __init__(self, name: str, length: int) -> None:
        self.name = name
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Key) -> tuple[str, int, int]:
        return (self.name, *key)


def _as_list(samples: list[Any]) -> list[Any]:
    return samples


def test_joined_sets_follow_each_other() -> None:
    joined = ConcatDataset([Echo("a", 2), Echo("b", 1), Echo("c", 3)])
    assert len(joined) == 6
    expected = [("a", 9, 0), ("a", 9, 1), ("b", 9, 0), ("c", 9, 0), ("c", 9, 1), ("c", 9, 2)]
    assert [joined[9, index] for index in range(6)] == expected
    with pytest.raises(IndexError):
        _ = joined[0, 6]
    with pytest.raises(IndexError):
        _ = joined[0, -1]
    with pytest.raises(ValueError, match="no sets"):
        ConcatDataset([])


def test_workers_change_nothing() -> None:
    def read(num_workers: int) -> list[Any]:
        loader = make_loader(
            Echo("a", 7),
            batches=ResumableBatchSampler(7, batch_size=3, rank=0, size=1, seed=5).resume(
                [SamplerSegment(1, 1)]
            ),
            collate=_as_list,
            num_workers=num_workers,
            pin_memory=False,
        )
        return list(islice(loader, 8))

    alone = read(0)
    assert [len(batch) for batch in alone] == [3, 1, 3, 3, 1, 3, 3, 1]
    assert read(2) == alone


class Refusing(Echo):
    """A dataset that blames the user for its fourth sample."""

    def __getitem__(self, key: Key) -> tuple[str, int, int]:
        if key[1] == 3:
            raise InputError("folder: nothing here can be read")
        return super().__getitem__(key)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_users_mistake_reaches_the_caller_bare(num_workers: int) -> None:
    loader = make_loader(
        Refusing("a", 5),
        batches=[[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]],
        collate=_as_list,
        num_workers=num_workers,
        pin_memory=False,
    )
    batches = iter(loader)
    assert next(batches) == [("a", 0, 0), ("a", 0, 1)]
    with pytest.raises(InputError) as caught:
        next(batches)
    assert str(caught.value) == "folder: nothing here can be read"


def test_fixed_lists_of_indices_make_an_evaluation_loader() -> None:
    loader = make_loader(
        range(5), batches=[[0, 1], [4], [2, 3]], collate=sum, num_workers=0, pin_memory=False
    )
    assert list(loader) == [1, 4, 5]


def _frozen(_epoch_and_index: list[Any]) -> int:
    return gc.get_freeze_count()


def test_workers_share_memory_that_their_garbage_collectors_leave_alone() -> None:
    loader = make_loader(
        Echo("a", 4),
        batches=ResumableBatchSampler(4, batch_size=2, rank=0, size=1, seed=5),
        collate=_frozen,
        num_workers=1,
        pin_memory=False,
    )
    before = gc.get_freeze_count()
    assert next(iter(loader)) > 1000
    assert gc.get_freeze_count() == before


def test_a_process_ends_with_its_workers() -> None:
    """A loader that is still there at exit is not waited for."""
    code = (
        "from alpro.datasets.dataloader import make_loader\n"
        "options = {'num_workers': 1, 'pin_memory': False}\n"
        "loader = make_loader(range(4), batches=[[0, 1], [2, 3]], collate=sum, **options)\n"
        "batches = iter(loader)\n"
        "print(next(batches))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_fork_leaves_the_workers_to_its_parent() -> None:
    loader = make_loader(
        range(4), batches=[[0, 1], [2, 3]], collate=sum, num_workers=1, pin_memory=False
    )
    assert list(loader) == [1, 5]
    process = multiprocessing.get_context("fork").Process(target=loader.__dict__.clear)
    process.start()
    process.join()
    assert list(loader) == [1, 5]
