from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alpro.datasets.video_datasets import UnreadableVideo
from alpro.distributed.engine import SingleProcess
from alpro.errors import InputError, RunError
from alpro.training.faults import UnreadableVideoLog
from alpro.training.run_directory import RunDirectory
from tests.factories import CPU
from tests.training.disks import FULL_DEVICE
from tests.training.toys import (
    KilledError,
    ToyBatch,
    assert_same_run,
    kill_at_batch,
    make_plan,
    toy_batch,
    train,
)

BAD = [UnreadableVideo("v1", "no frames"), UnreadableVideo("v2", "not a video")]


def make_ledger(root: Path, *, max_fraction: float, rank: int = 0) -> UnreadableVideoLog:
    output = RunDirectory(root, rank=rank)
    return UnreadableVideoLog(output, max_fraction=max_fraction, samples_per_epoch=20)


def test_the_limit_is_a_share_of_an_epoch(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, max_fraction=0.1)
    for epoch in range(3):
        ledger.record(BAD, epoch=epoch)
    with pytest.raises(InputError) as caught:
        ledger.record(BAD[:1], epoch=2)
    message = str(caught.value)
    assert "3 of the 20 training samples of epoch 3 could not be read" in message
    assert "max_unreadable_fraction 0.1" in message
    assert "  v1: no frames\n  v2: not a video\n  v1: no frames\n" in message


@pytest.mark.parametrize("rank", [0, 1])
def test_the_list_is_there_when_the_run_stops(tmp_path: Path, rank: int) -> None:
    ledger = make_ledger(tmp_path, max_fraction=0.1, rank=rank)
    ledger.record(BAD, epoch=0)
    with pytest.raises(InputError, match="  v2: not a video\n  v1: no frames\n"):
        ledger.record(BAD[:1], epoch=0)
    lines = (tmp_path / "log/unreadable_videos.jsonl").read_text().splitlines()
    assert [json.loads(line)["video_id"] for line in lines] == ["v1", "v2", "v1"]


def test_a_limit_of_zero_stops_at_the_first(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, max_fraction=0.0)
    ledger.record([], epoch=0)
    with pytest.raises(InputError, match="1 of the 20"):
        ledger.record(BAD[:1], epoch=0)


def test_the_list_is_appended_to_without_repetition(tmp_path: Path) -> None:
    engine = SingleProcess(CPU, scale_loss=False)
    ledger = make_ledger(tmp_path, max_fraction=1.0)
    ledger.write(engine)
    assert not (tmp_path / "log").exists()
    ledger.record(BAD, epoch=0)
    ledger.write(engine)
    ledger.write(engine)
    ledger.record(BAD[:1], epoch=0)
    ledger.write(engine)
    lines = (tmp_path / "log/unreadable_videos.jsonl").read_text().splitlines()
    assert [json.loads(line)["video_id"] for line in lines] == ["v1", "v2", "v1"]
    assert json.loads(lines[0]) == {"video_id": "v1", "reason": "no frames"}


def test_other_ranks_write_no_list(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, max_fraction=1.0, rank=1)
    ledger.record(BAD, epoch=0)
    ledger.write(SingleProcess(CPU, scale_loss=False))
    assert list(tmp_path.iterdir()) == []


def with_bad_videos(batch: Callable[[int], ToyBatch]) -> Callable[[int], ToyBatch]:
    """Batches of which every other one has a video that cannot be read."""

    def batch_of(number: int) -> ToyBatch:
        bad = [UnreadableVideo(f"größer {number}", "no frames")] if number % 2 else []
        return replace(batch(number), unreadable=bad)

    return batch_of


@pytest.mark.parametrize("last_batch", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("cut", [False, True])
def test_a_resumed_run_lists_each_video_once(tmp_path: Path, last_batch: int, cut: bool) -> None:
    plan = make_plan(save_steps=3)
    lists = [tmp_path / name / "log/unreadable_videos.jsonl" for name in ("whole", "killed")]
    train(tmp_path / "whole", plan=plan, batch=with_bad_videos(toy_batch))
    dying = with_bad_videos(kill_at_batch(last_batch))
    with pytest.raises(KilledError):
        train(tmp_path / "killed", plan=plan, batch=dying)
    if last_batch > plan.save_steps:  # it has listed more since, perhaps not all of a line
        with lists[1].open("ab") as file:
            file.write(b'{"video_id": "v9", "reason": "no frames"}\n')
            file.write(b'{"video_id": "gr\xc3' * cut)
    train(tmp_path / "killed", plan=plan, batch=with_bad_videos(toy_batch))
    listed = [[json.loads(line)["video_id"] for line in x.read_text().splitlines()] for x in lists]
    assert listed == [["größer 1", "größer 3", "größer 5"]] * 2
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_list_on_a_full_disk_ends_the_run(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path, max_fraction=1.0)
    ledger.record(BAD, epoch=0)
    (tmp_path / "log").mkdir()
    (tmp_path / "log/unreadable_videos.jsonl").symlink_to(FULL_DEVICE)
    with pytest.raises(RunError, match=r"unreadable_videos\.jsonl: cannot be written: No space"):
        ledger.write(SingleProcess(CPU, scale_loss=False))
