"""The odd and broken files of the optional shared data: each gets the right verdict."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from src.tools.check_data import main
from tests.shared_data import shared_data


def test_all_odd_files_get_the_verdict_of_ffmpeg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    real = shared / "real"
    with (real / "odd.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    expected = {row["file"]: int(row["frames"] or 0) > 0 for row in rows}
    assert main(["--videos", str(real / "odd"), "--output", str(tmp_path), "--full"]) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    verdicts = {}
    for video in report["videos"]:
        verdicts[Path(video["place"]).name] = video["verdict"] == "readable"
    assert verdicts == expected
    told = {one["subject"] for one in report["findings"]["decode_errors"]["items"]}
    assert {"decord_corrupted", "media3_sample_with_invalid_nalu", "mediabunny_annex-b"} <= told
    assert "15 problems" in capsys.readouterr().out

