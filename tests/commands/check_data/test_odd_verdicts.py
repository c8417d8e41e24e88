"""The odd and broken files of the optional shared data: each gets the right verdict."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from alpro.commands.check_data.command import main
from tests.shared_data import shared_data


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize("full", [False, True])
def test_all_odd_files_get_the_verdict_of_ffmpeg(
    tmp_path: Path, full: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    real = shared / "real"
    expected = {row["file"]: int(row["frames"] or 0) > 0 for row in table(real / "odd.tsv")}
    mode = ["--full"] if full else []
    assert main(["--videos", str(real / "odd"), "--output", str(tmp_path), *mode]) == 1
    videos = table(tmp_path / "videos.tsv")
    verdicts = {Path(one["place"]).name: one["verdict"] == "readable" for one in videos}
    assert verdicts == expected
    findings = json.loads((tmp_path / "report.json").read_text())["findings"]
    told = {one["subject"] for one in findings["decode_errors"]["items"]}
    assert {"decord_corrupted", "media3_sample_with_invalid_nalu", "mediabunny_annex-b"} <= told
    num_broken = list(expected.values()).count(False)
    assert f"{num_broken} problems to solve" in capsys.readouterr().out
