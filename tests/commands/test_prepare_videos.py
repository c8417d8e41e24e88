"""Preparing whole collections: ``alpro prepare-videos``."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alpro.commands.transcode.command import main
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.storage import open_videos
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import FAILURE_EXIT_CODE, USER_ERROR_EXIT_CODE
from tests.datasets.clips import indices_of, write_clip
from tests.shared_data import shared_data

REPOSITORY = Path(__file__).parents[2]
NAMES = ["a", "b", "c"]
NUM_FRAMES = 20
PATIENCE = 120  # seconds


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    for name, path in zip(NAMES, ("a.mp4", "b.avi", "more/c.mkv"), strict=True):
        write_clip(folder / path, num_frames=NUM_FRAMES - NAMES.index(name))
    return folder


def arguments(videos: Path, output: Path, *flags: str) -> list[str]:
    quick = ("--preset", "ultrafast", "--workers", "1", "--speed_sample", "0")
    return ["--videos", str(videos), "--output", str(output), *quick, *flags]


def frames_of(output: Path, video_id: str) -> list[int]:
    video = open_videos(output).fetch(video_id)
    assert video is not None
    return indices_of(
        PyAVDecoder().read(video, np.arange, preprocessing=PixelPreprocessing(size=64))
    )


def inodes(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in output.glob("*.mp4")}


@pytest.mark.parametrize("kind", ["folder", "lmdb", "shards"])
def test_all_videos_keep_their_ids_and_frames(videos: Path, tmp_path: Path, kind: str) -> None:
    if kind == "lmdb":
        pytest.importorskip("lmdb")
    output = tmp_path / "prepared"
    for _ in range(2):  # there is nothing left to do the second time
        assert main(arguments(videos, output, "--kind", kind)) == 0
        assert open_videos(output).video_ids() == NAMES
        for number, name in enumerate(NAMES):
            assert frames_of(output, name) == list(range(NUM_FRAMES - number))


def test_originals_may_be_prepared_from_what_was_prepared(videos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(arguments(videos, first, "--kind", "shards")) == 0
    assert main(arguments(first, second, "--frame_share", "0.1")) == 0
    assert [frames_of(second, name) for name in NAMES] == [[0, 10]] * 3


def test_sizes_and_speed_are_printed(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--frame_share", "0.5", "--speed_sample", "2")
    assert main(arguments(videos, tmp_path / "prepared", *flags)) == 0
    told = capsys.readouterr().out
    assert "3 of 3 videos prepared" in told
    assert "MB before" in told
    assert "29 of 57 frames kept" in told
    assert "of 2 videos, one thread" in told
    difference = float(told.split("differ by ")[1].split()[0])
    assert difference < 3  # frames next to each other differ by 12


def test_failed_videos_are_listed_and_not_retried(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "broken.mp4").write_bytes(b"no video")
    output = tmp_path / "prepared"
    for _ in range(2):
        assert main(arguments(videos, output)) == FAILURE_EXIT_CODE
        (line,) = (output / "failed.jsonl").read_text().splitlines()
        assert json.loads(line)["video_id"] == "broken"
        assert json.loads(line)["reason"].startswith("no video: ")
        told = capsys.readouterr()
        assert "1 of 4 videos could not be prepared" in told.err
        assert "3 of 4 videos prepared" in told.out
        assert open_videos(output).video_ids() == NAMES
    write_clip(videos / "broken.mp4")
    assert main(arguments(videos, output)) == 0  # another file now
    assert not (output / "failed.jsonl").exists()
    assert open_videos(output).video_ids() == [*NAMES[:2], "broken", "c"]


def test_damaged_originals_are_reported(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((videos / "b.avi").read_bytes())
    middle = content.index(b"movi") + 900
    content[middle : middle + 400] = b"\xff" * 400
    (videos / "b.avi").write_bytes(content)
    assert main(arguments(videos, tmp_path / "prepared")) == 0
    assert "1 original damaged, with missing frames: b" in capsys.readouterr().out


def test_only_missing_videos_are_prepared(videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    assert main(arguments(videos, output)) == 0
    before = inodes(output)
    (output / "b.mp4").unlink()
    write_clip(videos / "d.mp4")
    assert main(arguments(videos, output)) == 0
    after = inodes(output)
    assert sorted(after) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert (after["a.mp4"], after["c.mp4"]) == (before["a.mp4"], before["c.mp4"])


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_a_killed_command_resumes(videos: Path, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "prepared"
    flags = arguments(videos, output, "--kind", kind)
    command = subprocess.Popen(
        [sys.executable, "-m", "alpro", "prepare-videos", *flags],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = output / ".prepared" / "videos.jsonl"
    until = time.monotonic() + PATIENCE
    while not journal.exists() and time.monotonic() < until:
        time.sleep(0.01)
    command.send_signal(signal.SIGKILL)
    command.wait()
    noted = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    before = inodes(output)
    assert main(flags) == 0
    assert open_videos(output).video_ids() == NAMES
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert keys[: len(noted)] == noted
    again = keys[len(noted) :]  # notes come first: one may be of a video that was not there yet
    assert set(keys) == set(NAMES)
    assert len(set(noted) & set(again)) <= 1
    assert before.items() <= inodes(output).items()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--crf", "30"], "crf was 21, is 30"),
        (["--shorter_side", "100"], "shorter_side was 256, is 100"),
        (["--frame_share", "0.1"], "frame_share was None, is 1/10"),
        (["--kind", "shards"], "kind was folder, is shards"),
    ],
)
def test_a_folder_with_other_settings_is_refused(
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    told: str,
) -> None:
    output = tmp_path / "prepared"
    assert main(arguments(videos, output)) == 0
    before = inodes(output)
    assert main(arguments(videos, output, *flags)) == USER_ERROR_EXIT_CODE
    message = capsys.readouterr().err
    assert told in message
    assert str(output) in message
    assert "choose another folder" in message
    assert inodes(output) == before


def test_limits_may_change_between_runs(videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    assert main(arguments(videos, output)) == 0
    assert main(arguments(videos, output, "--workers", "2", "--seconds", "30")) == 0


def test_videos_above_the_memory_limit_fail(videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared"
    assert main(arguments(videos, output, "--megabytes", "2")) == FAILURE_EXIT_CODE
    lines = [json.loads(line) for line in (output / "failed.jsonl").read_text().splitlines()]
    assert [line["video_id"] for line in lines] == NAMES
    assert main(arguments(videos, output, "--retry_failed")) == 0
    assert open_videos(output).video_ids() == NAMES


def test_originals_are_not_mixed_with_prepared_videos(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in (videos, videos / "prepared"):
        assert main(arguments(videos, output)) == USER_ERROR_EXIT_CODE
        assert "would be mistaken for originals" in capsys.readouterr().err


def test_folders_without_videos_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "absent", tmp_path / "out")) == USER_ERROR_EXIT_CODE
    assert "absent" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(arguments(tmp_path / "empty", tmp_path / "out")) == USER_ERROR_EXIT_CODE
    assert "holds no videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--fps", "2", "--frame_share", "0.5"],
        ["--frame_share", "1.5"],
        ["--fps", "0"],
        ["--fps", "1/0"],
        ["--crf", "52"],
        ["--key_frame_interval", "0"],
    ],
)
def test_wrong_flags_of_prepare_videos_are_refused(
    videos: Path, tmp_path: Path, flags: list[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments(videos, tmp_path / "prepared", *flags))
    assert ending.value.code == USER_ERROR_EXIT_CODE


def test_no_odd_file_stops_the_preparation(tmp_path: Path) -> None:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    with (shared / "real/odd.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    output = tmp_path / "prepared"
    flags = ("--shorter_side", "32", "--workers", "2")
    assert main(arguments(shared / "real/odd", output, *flags)) == FAILURE_EXIT_CODE
    lines = (output / "failed.jsonl").read_text().splitlines()
    failed = {json.loads(line)["video_id"] for line in lines}
    prepared = {path.stem for path in output.glob("*.mp4")}
    assert len(failed) + len(prepared) == len(rows)
    for row in rows:
        names = {row["file"], Path(row["file"]).stem}
        assert bool(names & prepared) == (int(row["frames"] or 0) > 0), row["file"]
        assert bool(names & prepared) != bool(names & failed), row["file"]
