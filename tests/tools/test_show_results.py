from __future__ import annotations

import json
from pathlib import Path

import pytest

from src.tools.show_results import main


def write_scores(folder: Path, *, r1: float, matching: bool = True) -> None:
    metrics = {"r1": r1, "r5": 2 * r1, "r10": 3 * r1, "medianR": 4.0, "meanR": 5.0}
    scores = {"text2video": metrics, "text2video_vtc": {**metrics, "r1": r1 + 1}}
    folder.mkdir(parents=True)
    protocol = {"matching": matching, "num_captions": 100}
    (folder / "scores.json").write_text(json.dumps({**scores, "protocol": protocol}))


def test_one_row_per_evaluation_and_ranking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scores(tmp_path / "results_test/step_best_1_mean_reversed", r1=7.0)
    write_scores(tmp_path / "results_test/step_best_1_mean", r1=20.0)
    write_scores(tmp_path / "results_val/step_last_1_mean_vtc", r1=30.0, matching=False)
    assert main(["--output_dir", str(tmp_path)]) == 0
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()
    ]
    assert cells[0] == [
        *("results", "text to video", "captions", "R@1", "R@5", "R@10", "median rank")
    ]
    assert [[row[0], row[1], row[3], row[4]] for row in cells[2:]] == [
        ["results_test/step_best_1_mean", "re-ranked by VTM", "20.0", "40.0"],
        ["results_test/step_best_1_mean", "VTC only", "21.0", "40.0"],
        ["results_test/step_best_1_mean_reversed", "re-ranked by VTM", "7.0", "14.0"],
        ["results_test/step_best_1_mean_reversed", "VTC only", "8.0", "14.0"],
        ["results_val/step_last_1_mean_vtc", "VTC only", "31.0", "60.0"],
    ]


@pytest.mark.parametrize(
    ("folder", "message"), [(".", "evaluate the run first"), ("nowhere", "there is no folder")]
)
def test_what_cannot_be_shown_is_said(
    folder: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output_dir", str(tmp_path / folder)]) == 2
    assert message in capsys.readouterr().err
