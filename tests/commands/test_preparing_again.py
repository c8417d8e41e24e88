"""Preparing a collection again: what was done, what has changed, what is not ours."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from alpro.commands.transcode import collection, encoding
from alpro.commands.transcode.command import main
from alpro.commands.transcode.encoding import prepare_video
from alpro.commands.transcode.settings import Preparation
from alpro.datasets.storage import open_videos
from alpro.errors import FAILURE_EXIT_CODE, USER_ERROR_EXIT_CODE
from tests.commands.test_prepare_videos import arguments, frames_of, inodes
from tests.datasets.clips import write_clip
from tests.datasets.stored import fetched

NOT_UTF8 = os.fsdecode(b"lat\xff1")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, num_frames in (("a", 6), ("b", 5)):
        write_clip(folder / f"{name}.mp4", num_frames=num_frames)
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "prepared"


def failed(output: Path) -> dict[str, str]:
    path = output / "failed.jsonl"
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else []
    return {line["video_id"]: line["reason"] for line in lines}


@pytest.mark.parametrize("name", ["a.mp4", "deep/c.mp4"])
def test_a_folder_of_other_videos_is_refused(
    videos: Path, output: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (output / name).parent.mkdir(parents=True)
    (output / name).write_bytes(b"of somebody else")
    assert main(arguments(videos, output)) == USER_ERROR_EXIT_CODE
    assert "holds videos that this command has not prepared" in capsys.readouterr().err
    assert not (output / ".prepared").exists()
    assert (output / name).read_bytes() == b"of somebody else"


def test_a_video_from_elsewhere_does_not_count_as_prepared(videos: Path, output: Path) -> None:
    assert main(arguments(videos, output)) == 0
    (output / "c.mp4").write_bytes(b"of somebody else")
    write_clip(videos / "c.mp4")
    assert main(arguments(videos, output)) == FAILURE_EXIT_CODE
    assert "that is not ours: remove it" in failed(output)["c"]
    assert (output / "c.mp4").read_bytes() == b"of somebody else"
    (output / "c.mp4").unlink()
    assert main(arguments(videos, output)) == 0


@pytest.mark.parametrize("kind", ["folder", "lmdb"])
def test_changed_originals_are_prepared_again(videos: Path, output: Path, kind: str) -> None:
    flags = arguments(videos, output, "--kind", kind)
    assert main(flags) == 0
    before = inodes(output)
    write_clip(videos / "b.mp4", num_frames=9)
    assert main(flags) == 0
    assert len(frames_of(output, "b")) == 9
    assert inodes(output).get("a.mp4") == before.get("a.mp4")
    (videos / "b.mp4").write_bytes(b"no video")
    for _ in range(2):  # the old one stays, and is known as ours
        assert main(flags) == FAILURE_EXIT_CODE
        assert failed(output)["b"].startswith("no video: ")
    write_clip(videos / "b.mp4", num_frames=4)
    assert main(flags) == 0
    assert len(frames_of(output, "b")) == 4


def test_shards_report_stale_videos(
    videos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = arguments(videos, output, "--kind", "shards")
    assert main(flags) == 0
    write_clip(videos / "b.mp4", num_frames=9)
    assert main(flags) == 0
    assert "1 original changed since: b; shards cannot replace videos" in capsys.readouterr().out
    assert len(frames_of(output, "b")) == 5


def test_failures_of_videos_that_are_gone_are_forgotten(
    videos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "broken.mp4").write_bytes(b"no video")
    assert main(arguments(videos, output)) == FAILURE_EXIT_CODE
    (videos / "broken.mp4").unlink()
    assert main(arguments(videos, output)) == 0
    assert failed(output) == {}
    assert "2 of 2 videos prepared" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", "lmdb", "shards"])
def test_videos_with_names_that_are_not_utf8_are_prepared(
    videos: Path, output: Path, kind: str
) -> None:
    (videos / "a.mp4").rename(videos / f"{NOT_UTF8}.mp4")
    (videos / f"{NOT_UTF8}2.mp4").write_bytes(b"no video")
    for _ in range(2):
        assert main(arguments(videos, output, "--kind", kind)) == FAILURE_EXIT_CODE
        assert [*failed(output)] == [f"{NOT_UTF8}2"]
        assert len(fetched(open_videos(output), NOT_UTF8) or b"") > 1000


def test_videos_behind_a_disk_error_are_retried(videos: Path, output: Path) -> None:
    (videos / "c.mp4").symlink_to("/proc/self/mem")  # a file that gives an input/output error
    assert main(arguments(videos, output)) == FAILURE_EXIT_CODE
    assert failed(output) == {"c": "the file cannot be read: Input/output error"}
    assert '"c"' not in (output / ".prepared/videos.jsonl").read_text()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_errors_of_the_disk_are_no_faults_of_a_video(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise av.error.OSError(number, os.strerror(number), "a.mp4")

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        prepare_video(videos / "a.mp4", tmp_path / "a.mp4", preparation=Preparation())
    assert caught.value.errno == number
    job = collection._Job("a", videos / "a.mp4")
    outcome = collection._prepare_job(job, scratch=tmp_path, preparation=Preparation())
    assert isinstance(outcome, collection._DiskTrouble)


def test_a_disk_that_fails_within_a_file_leaves_no_short_video(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = encoding._Frames._packets

    def some(frames: encoding._Frames) -> object:
        all_packets = packets(frames)
        yield next(all_packets)
        frames.ended_by_disk = True

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(encoding._Frames, "_packets", some)
    target = tmp_path / "prepared.mp4"
    prepare_video(videos / "a.mp4", target, preparation=Preparation())  # the file is there whole
    monkeypatch.setattr(encoding, "_read_through", fail)
    with pytest.raises(OSError, match="Input/output error"):
        prepare_video(videos / "a.mp4", target, preparation=Preparation())
    assert not target.exists()


def test_a_command_that_fails_leaves_no_settings(
    tmp_path: Path, videos: Path, output: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(arguments(empty, output)) == USER_ERROR_EXIT_CODE
    assert main(arguments(videos, output)) == 0


def test_a_folder_in_use_by_another_command_is_refused_by_flag(
    videos: Path, output: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alpro.training.writable.PATIENCE", 0.0)
    monkeypatch.setattr("alpro.training.writable._take", lambda _: False)
    assert main(arguments(videos, output)) == USER_ERROR_EXIT_CODE
    told = capsys.readouterr().err
    assert "--output: another process writes to" in told
    assert "output_dir" not in told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--fps", "abc"), "--fps: 'abc' is not a number"),
        (("--frame_share", "abc"), "--frame_share: 'abc' is not a number"),
        (("--crf", "abc"), "--crf: 'abc' is not an integer"),
    ],
)
def test_wrong_values_of_flags_are_reported(
    videos: Path, output: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str], told: str
) -> None:
    with pytest.raises(SystemExit):
        main(arguments(videos, output, *flags))
    assert told in capsys.readouterr().err


def test_missing_videos_are_reported_by_flag(
    tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "nothere", output)) == USER_ERROR_EXIT_CODE
    told = capsys.readouterr().err
    assert told.startswith("error: --videos: folder ")
    assert "img" not in told


def test_help_shows_no_empty_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "(default: 21)" in shown
    assert "None" not in shown
    assert "False" not in shown


def write_moving(path: Path, *, width: int, num_frames: int = 40) -> Path:
    """Write coloured squares that move: enough for x264 to look ahead."""
    squares = np.random.default_rng(width).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    picture = squares.repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, 136, "yuv420p"
        stream.bit_rate = 4_000_000
        for i in range(num_frames):
            view = np.ascontiguousarray(picture[3 * i :, 5 * i :][:136, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_bytes_are_the_same_whatever_was_prepared_before(tmp_path: Path) -> None:
    """With AVX-512 they were not: x264 read what others had left in memory."""
    widths = (200, 184, 176, 456)
    clips = [write_moving(tmp_path / f"{width}.mkv", width=width) for width in widths]
    target = tmp_path / "prepared.mp4"
    made: dict[Path, set[bytes]] = {clip: set() for clip in clips}
    for turn in range(4):
        for clip in clips[turn:] + clips[:turn]:
            prepare_video(clip, target, preparation=Preparation())
            made[clip].add(target.read_bytes())
    assert [len(each) for each in made.values()] == [1] * len(clips)
