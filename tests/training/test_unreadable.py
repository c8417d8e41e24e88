from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.datasets.unreadable import UnreadableVideo
from src.distributed.engine import SingleProcess
from src.errors import InputError
from src.training.output import OutputFolder
from src.training.unreadable import UnreadableLedger
from tests.factories import CPU

BAD = [UnreadableVideo("v1", "no frames"), UnreadableVideo("v2", "not a video")]


def make_ledger(root: Path, *, max_fraction: float, rank: int = 0) -> UnreadableLedger:
    output = OutputFolder(root, rank=rank)
    return UnreadableLedger(output, max_fraction=max_fraction, samples_per_epoch=20)


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
