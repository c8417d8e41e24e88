from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from src.tools.show_results import main


def write_scores(folder: Path, *, frame_order: str, r1: float, age: int) -> None:
    metrics = {"r1": r1, "r5": 2 * r1, "r10": 3 * r1, "medianR": 4.0, "meanR": 5.0}
    by_vtc = {**metrics, "r1": r1 + 1}
    scores = {"text2video": metrics, "text2video_vtc": by_vtc}
    folder.mkdir(parents=True)
    path = folder / "scores.json"
    path.write_text(json.dumps({**scores, "protocol": {"frame_order": frame_order}}))
    os.utime(path, (age, age))


def test_one_row_per_evaluation_and_ranking_oldest_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scores(tmp_path / "results_test/later", frame_order="reversed", r1=7.0, age=200)
    write_scores(tmp_path / "results_val/sooner", frame_order="original", r1=20.0, age=100)
    assert main(["--output_dir", str(tmp_path)]) == 0
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert cells[0] == ["text to video", "frames", "R@1", "R@5", "R@10", "median rank"]
    assert [row[1:4] for row in cells[2:]] == [
        ["original", "20.0", "40.0"],
        ["original", "21.0", "40.0"],
        ["reversed", "7.0", "14.0"],
        ["reversed", "8.0", "14.0"],
    ]


def test_a_folder_without_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output_dir", str(tmp_path)]) == 2
    assert "evaluate the run first" in capsys.readouterr().err
