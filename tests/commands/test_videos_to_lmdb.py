from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alpro.commands import videos_to_lmdb
from alpro.commands.videos_to_lmdb import FAILURES_FILE, main
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.errors import FAILURE_EXIT_CODE, USER_ERROR_EXIT_CODE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.AVI", "part/c.webm", "part/deep/d.e.mp4", "é.mkv", "notes.txt"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "videos"


def run(videos: Path, output: Path, *flags: str) -> int:
    return main(["--videos", str(videos), "--output", str(output), *flags])


def test_all_videos_are_there_under_their_names(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(videos, tmp_path / "db") == 0
    stored = VideoLmdb(tmp_path / "db")
    assert stored.video_ids() == ["a", "b", "c", "d.e", "é"]
    assert stored.fetch("d.e") == (videos / "part/deep/d.e.mp4").read_bytes()
    assert "5 of 5 videos, 5 of them written now" in capsys.readouterr().out


def test_video_ids_may_be_paths(videos: Path, tmp_path: Path) -> None:
    assert run(videos, tmp_path / "db", "--ids", "path", "--ext", ".webm", "mp4") == 0
    assert VideoLmdb(tmp_path / "db").video_ids() == ["a", "part/c", "part/deep/d.e"]


def test_a_second_run_adds_the_missing_videos(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(videos, tmp_path / "db", "--ext", "avi", "webm") == 0
    assert run(videos, tmp_path / "db", "--verify") == 0
    out = capsys.readouterr().out
    assert "2 of 5 videos written before" in out
    assert "3 of them written now" in out
    assert "the bytes of 5 videos were compared" in out
    assert run(videos, tmp_path / "db", "--ext", "mp4") == 0
    assert "also holds 3 videos without a file" in capsys.readouterr().out


def test_a_killed_command_resumes(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(300):
        (tmp_path / f"videos/{number}.mp4").write_bytes(bytes([number % 256]) * 300_000)
    command = [sys.executable, "-m", "alpro", "videos-to-lmdb"]
    command += ["--videos", str(tmp_path / "videos"), "--output", str(tmp_path / "db")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        data = tmp_path / "db/data.mdb"
        while process.poll() is None and not (data.exists() and data.stat().st_size > 1 << 20):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert run(tmp_path / "videos", tmp_path / "db", "--verify") == 0
    assert len(VideoLmdb(tmp_path / "db").video_ids()) == 300


def test_failures_are_listed_and_the_others_written(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "empty.mp4").touch()
    (videos / "broken.mp4").symlink_to(tmp_path / "nowhere")
    (videos / ("x" * 250 + ".mp4")).write_bytes(b"as long a name as files have")
    long = videos / "/".join(["y" * 200] * 3)
    long.mkdir(parents=True)
    (long / "z.mp4").write_bytes(b"Z")
    assert run(videos, tmp_path / "db", "--ids", "path") == FAILURE_EXIT_CODE
    told = capsys.readouterr().err
    listed = (tmp_path / "db" / FAILURES_FILE).read_text().splitlines()
    reasons = dict(line.split("\t") for line in listed)
    assert reasons[str(videos / "empty.mp4")] == "the file is empty"
    assert "No such file" in reasons[str(videos / "broken.mp4")]
    assert "511 at most" in reasons[str(long / "z.mp4")]
    assert "3 videos failed" in told
    assert len(VideoLmdb(tmp_path / "db").video_ids()) == 6
    (videos / "empty.mp4").write_bytes(b"now it has something")
    (videos / "broken.mp4").unlink()
    (long / "z.mp4").unlink()
    assert run(videos, tmp_path / "db", "--ids", "path") == 0
    assert not (tmp_path / "db" / FAILURES_FILE).exists()


def test_changed_files_are_written_again(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(videos, tmp_path / "db") == 0
    data = (videos / "a.mp4").read_bytes()
    (videos / "a.mp4").write_bytes(data[::-1])
    (videos / "b.AVI").write_bytes(data + b"more")
    (videos / "é.mkv").write_bytes(b"")
    capsys.readouterr()
    assert run(videos, tmp_path / "db", "--verify") == FAILURE_EXIT_CODE
    stored = VideoLmdb(tmp_path / "db")
    assert (stored.fetch("a"), stored.fetch("b")) == (data[::-1], data + b"more")
    told = capsys.readouterr().out
    assert "4 of 5 videos, 0 of them written now" in told
    assert "2 videos replaced, whose files had changed" in told
    assert "All sizes" not in told
    assert "the file is empty" in (tmp_path / "db" / FAILURES_FILE).read_text()


def test_a_pipe_is_not_read(videos: Path, tmp_path: Path) -> None:
    os.mkfifo(videos / "pipe.mp4")
    assert run(videos, tmp_path / "db") == FAILURE_EXIT_CODE
    assert "pipe.mp4\tit is not a regular file" in (tmp_path / "db" / FAILURES_FILE).read_text()


def test_videos_with_names_that_are_not_utf8_are_stored(videos: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"lat\xff1")
    (videos / f"{name}.mp4").write_bytes(b"1")
    (videos / f"{name}2.mp4").write_bytes(b"")
    assert run(videos, tmp_path / "db") == FAILURE_EXIT_CODE
    assert VideoLmdb(tmp_path / "db").fetch(name) == b"1"
    assert "lat\\udcff12.mp4\tthe file is empty" in (tmp_path / "db" / FAILURES_FILE).read_text()


def test_without_verify_sizes_of_all_and_bytes_of_some_are_compared(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos_to_lmdb, "NUM_COMPARED", 1)
    assert run(videos, tmp_path / "db") == 0
    data = (videos / "b.AVI").read_bytes()
    (videos / "b.AVI").write_bytes(data[::-1])
    assert run(videos, tmp_path / "db") == 0
    assert VideoLmdb(tmp_path / "db").fetch("b") == data
    (videos / "b.AVI").write_bytes(data + b"more")
    assert run(videos, tmp_path / "db") == 0
    assert VideoLmdb(tmp_path / "db").fetch("b") == data + b"more"


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("part/a.mp4", "a.mp4 and part/a.mp4 have the same id, 'a'; .* --ids path"),
        ("a.mkv", "a.mkv and a.mp4 have the same id, 'a'; .* --ext"),
    ],
)
def test_two_files_of_one_id_are_an_error(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str, told: str
) -> None:
    (videos / other).write_bytes(b"other")
    assert run(videos, tmp_path / "db") == USER_ERROR_EXIT_CODE
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--videos", "nowhere", "--output", "db"], "there is no folder nowhere"),
        (["--videos", "videos", "--output", "videos"], "videos holds other files"),
        (["--videos", "videos", "--output", "db", "--ext", "mov"], "no file ends in one of .mov"),
    ],
)
def test_bad_flags_are_named(
    videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(videos.parent)
    assert main(flags) == USER_ERROR_EXIT_CODE
    assert told in capsys.readouterr().err
