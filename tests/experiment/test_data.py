"""Annotations and the storages of their videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alpro.configs.downstream import DownstreamDataset
from alpro.datasets.annotations import read_captions
from alpro.datasets.storage import ImageFolder
from alpro.errors import InputError
from alpro.experiment.data import find_videos
from tests.datasets.clips import write_image


def _read(folder: Path, rows: list[dict[str, Any]]) -> dict[str, int]:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    part = DownstreamDataset(name="one", txt=str(path), img=str(folder / "frames"))
    captions = read_captions(path)
    annotations = find_videos(part, captions, path=path, extension=".mp4", allowed=False)
    assert isinstance(annotations.videos, ImageFolder)
    return annotations.videos.frame_counts


def test_stated_numbers_of_frames_reach_the_storage(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    for name in ("v", "w"):
        write_image(tmp_path / "frames" / name / f"{name}_000.jpg", 1)
    row = {"text": "x", "clip_id": "v"}
    other = {"text": "y", "clip_id": "w"}
    assert _read(tmp_path, [row, other]) == {}
    assert _read(tmp_path, [row | {"num_frame": 3}, row, other]) == {"v": 3}
    with pytest.raises(InputError, match=r"jsonl: num_frame of w is 2 in one row and 3 in another"):
        _read(tmp_path, [row, other | {"num_frame": 2}, other | {"num_frame": 3}])
