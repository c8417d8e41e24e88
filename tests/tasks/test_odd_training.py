"""Training on a folder of odd and broken files, where the folder of shared data has them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from alpro.datasets.annotations import CaptionRow
from tests.datasets.clips import write_clip
from tests.factories import TinyExperiment, write_captions
from tests.shared_data import shared_data
from tests.tasks.conftest import Run


@pytest.fixture
def odd() -> dict[str, bool]:
    """Name of each odd file -> whether ffmpeg decodes at least one frame of it."""
    shared = shared_data()
    if shared is None or not (shared / "real" / "odd.tsv").is_file():
        pytest.skip("needs the odd files of ../shared")
    with (shared / "real" / "odd.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["file"]: int(row["frames"] or 0) > 0 for row in rows}


def test_odd_files_neither_kill_nor_hang_a_run_and_readable_ones_are_used(
    odd: dict[str, bool], tmp_path: Path, run: Run
) -> None:
    shared = shared_data()
    assert shared is not None
    experiment = TinyExperiment(tmp_path)
    captions = write_captions(tmp_path / "odd.jsonl", [CaptionRow("a ball", name) for name in odd])
    training_set = {"name": "odd", "txt": str(captions), "img": str(shared / "real" / "odd")}
    for number in range(experiment.num_val):
        write_clip(tmp_path / "videos" / f"val{number}.mp4")
    changes: dict[str, Any] = {
        **{"train_datasets": [training_set], "max_unreadable_fraction": 1.0, "n_workers": 1},
        **{"test_datasets": []},
        **{"train_batch_size": 10, "num_train_epochs": 1},
    }
    run(experiment.arguments(**changes))
    listed = (tmp_path / "run" / "log" / "unreadable_videos.jsonl").read_text().splitlines()
    unreadable = {json.loads(line)["video_id"] for line in listed}
    assert unreadable == {name for name, readable in odd.items() if not readable}
