from __future__ import annotations

from pathlib import Path

import pytest

from alpro.commands.bench.command import main
from alpro.commands.bench.loader import DECODING, LOADER, Way, loader_table
from tests.datasets.clips import write_clip
from tests.test_docs import ROOT


def cells_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_loader_table_matches_a_hand_computed_one() -> None:
    here = Path("clips")
    table = loader_table(
        {Way(here, 2, DECODING): [10.0, 40.0, 20.0], Way(here, 2, LOADER): [18.0, 30.0, 5.0]}
    )
    assert cells_of(table) == [
        ["clips", "2", "decoding alone", "20.0 (10.0 to 40.0)", "1.00"],
        ["clips", "2", "loader", "18.0 (5.0 to 30.0)", "0.90"],
    ]


def test_all_paths_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", num_frames=6)
    (tmp_path / "broken.mp4").write_text("no video")
    flags = ["--frames", "2", "--size", "32", "--batch_size", "2", "--clips", "4", "--rounds", "1"]
    vocabulary = str(ROOT / "ext/bert-base-uncased")
    sets = ["--videos", str(tmp_path), "--workers", "1", "--tokenizer_dir", vocabulary]
    assert main(["loader", *sets, *flags]) == 0
    rows = cells_of(capsys.readouterr().out)
    assert [row[2] for row in rows] == ["decoding alone", "loader", "loader with RandAugment"]
    assert all(float(row[3].split()[0]) > 0 for row in rows)


def test_a_folder_without_a_readable_video_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    vocabulary = str(ROOT / "ext/bert-base-uncased")
    assert main(["loader", "--videos", str(tmp_path), "--tokenizer_dir", vocabulary]) == 2
    assert "none of its videos can be read" in capsys.readouterr().err
