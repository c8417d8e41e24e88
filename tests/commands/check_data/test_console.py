"""Printed summary of a check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alpro.commands.check_data.command import main
from alpro.errors import FAILURE_EXIT_CODE
from tests.commands.check_data.clips import write_noisy_clip


def check(*flags: object, output: Path) -> None:
    words = [*map(str, flags), "--n_workers", "1", "--output", str(output)]
    assert main(words) == FAILURE_EXIT_CODE


def test_a_reason_that_all_missing_videos_share_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videos").mkdir()
    annotations = tmp_path / "a.jsonl"
    rows = [{"caption": f"a {name}", "video_id": name} for name in "vwxyz"]
    annotations.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check("--videos", tmp_path / "videos", "--annotations", annotations, output=tmp_path / "check")
    out = capsys.readouterr().out
    assert out.count("it is empty") == 1
    assert f"- {tmp_path / 'videos'}: it is empty: v, w, x, ...\n" in out


def test_the_console_names_each_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos, annotations = tmp_path / "videos", tmp_path / "a.csv"
    write_noisy_clip(videos / "sound.mp4", seed=0)
    for name in ("a", "b\udcff", "c"):
        (videos / f"{name}.mp4").write_text("no video")
    (videos / "d.mp4").write_bytes(b"\x89PNG\r\n\x1a\n")
    check("--videos", videos, output=tmp_path / "check")
    out = capsys.readouterr().out
    assert "- a: no video: the file holds a text\n" in out
    assert "- b\\udcff: no video" in out
    assert "... and 1 more" in out
    assert "rows" not in out
    assert "allow_missing_videos" not in out
    annotations.write_text("video_id,caption\nsound," + "x" * 200_000)
    check("--videos", videos, "--annotations", annotations, output=tmp_path / "check")
    assert f"- {annotations}:2: not CSV (field larger" in capsys.readouterr().out


def test_unknown_columns_are_one_message_with_all_accepted_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_noisy_clip(tmp_path / "videos/a.mp4", seed=0)
    annotations = tmp_path / "a.csv"
    annotations.write_text("movie,words\na,a dog\n")
    check("--videos", tmp_path / "videos", "--annotations", annotations, output=tmp_path / "check")
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "no column" in line)
    assert "no column 'caption' (or text or name) and no 'clip_name' (or clip_id or " in line
    assert "in the header ['movie', 'words']" in line


def test_the_file_with_a_name_like_that_of_a_missing_video_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, annotations = tmp_path / "videos", tmp_path / "a.csv"
    for seed, name in enumerate(("gray", "grays", "other", *"bcdefg")):
        write_noisy_clip(videos / f"{name}.mp4", seed=seed)
    annotations.write_text("clip_name,caption\ngrey,a cat\ngrays,a dog\nxyz,a bird\n")
    check("--videos", videos, "--annotations", annotations, output=tmp_path / "check")
    out = capsys.readouterr().out
    assert "- grey: is it gray.mp4, which no annotation names?\n" in out
    assert "- xyz\n" in out
    assert "remark   8  videos that no annotation names\n" in out
    assert "- b, c, d, e, f, ...\n" in out
