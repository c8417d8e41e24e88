from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alpro.commands import video_writers
from alpro.commands.video_writers import LmdbWriter, open_writer
from alpro.datasets.storage import VideoFolder, VideoStorage, open_videos
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.datasets.storage.shards import VideoShards
from alpro.errors import InputError, RunError
from tests.datasets.stored import KINDS, content_of, fetched, in_child, write_tar
from tests.training.disks import largest_file

ROOT = Path(__file__).parents[2]
IDS = [f"video {number}" for number in range(40)]


def open_of_kind(path: Path, kind: str) -> VideoStorage:
    return {"folder": VideoFolder, "lmdb": VideoLmdb, "shards": VideoShards}[kind](path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_writer_resumes(tmp_path: Path, kind: str) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from alpro.commands import video_writers\n"
        "from tests.datasets.stored import content_of\n"
        "video_writers.PENDING_BYTES = 1000\n"
        "path, kind, *ids = sys.argv[1:]\n"
        "with video_writers.open_writer(Path(path), kind, shard_videos=7) as writer:\n"
        "    for name in ids:\n"
        "        if name not in writer:\n"
        "            writer.put(name, content_of(name))\n"
        "            print(name, flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / kind), kind, *IDS]
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            put = [process.stdout.readline().strip() for _ in range(10)]
            process.send_signal(signal.SIGKILL)
        assert set(put) <= set(IDS)
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True).returncode == 0
    videos = open_videos(tmp_path / kind)
    assert videos.video_ids() == sorted(IDS)
    assert all(fetched(videos, name) == content_of(name) for name in IDS)
    hidden = [path.name for path in (tmp_path / kind).iterdir() if path.name.endswith(".tmp")]
    assert kind == "folder" or hidden == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_keeps_the_videos_put_before(tmp_path: Path, kind: str) -> None:
    def interrupted() -> None:
        with open_writer(tmp_path / kind, kind) as writer:
            writer.put("a", b"A")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_writer(tmp_path / kind, kind) as writer:
        assert "a" in writer
        assert "b" not in writer
        writer.put("b", b"B")
    assert [fetched(open_videos(tmp_path / kind), name) for name in "ab"] == [b"A", b"B"]
    if kind == "shards":
        assert [path.name for path in (tmp_path / kind).glob("*.tar")] == ["000000.tar"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_can_be_put_only_once(tmp_path: Path, kind: str) -> None:
    with open_writer(tmp_path / kind, kind) as writer:
        writer.put("a", b"A")
        with pytest.raises(InputError, match="'a' exists already"):
            writer.put("a", b"other")
        for name in ("", "../a", "/a", "a//b", "a/", "./a", "a\0b"):
            with pytest.raises(InputError, match="not a file name"):
                writer.put(name, b"A")
    assert fetched(open_of_kind(tmp_path / kind, kind), "a") == b"A"


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_stored_unchanged(tmp_path: Path, kind: str) -> None:
    (tmp_path / "source.mp4").write_bytes(b"from a file" * 1000)
    with open_writer(tmp_path / kind, kind) as writer:
        writer.put("a", tmp_path / "source.mp4")
        with pytest.raises(FileNotFoundError):
            writer.put("b", tmp_path / "nowhere.mp4")
        assert "b" not in writer
        writer.put("c", b"C")
    videos = open_videos(tmp_path / kind)
    assert videos.video_ids() == ["a", "c"]
    assert fetched(videos, "a") == b"from a file" * 1000


def test_an_lmdb_grows_beyond_its_first_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_writers, "PENDING_BYTES", 150_000)
    writer = LmdbWriter(tmp_path, first_map_bytes=1 << 16)
    for number in range(40):
        writer.put(str(number), bytes([number]) * 50_000)
        assert str(number) in writer
    writer.close(complete=True)
    videos = VideoLmdb(tmp_path)
    assert len(videos.video_ids()) == 40
    assert all(videos.fetch(str(i)) == bytes([i]) * 50_000 for i in range(40))


def test_ids_too_long_for_an_lmdb_are_refused(tmp_path: Path) -> None:
    longest = "é" * 255 + "x"
    with open_writer(tmp_path, "lmdb") as writer:
        writer.put(longest, b"1")
        with pytest.raises(InputError, match="has 512 bytes; an LMDB takes 511 at most"):
            writer.put(longest + "x", b"2")
    assert VideoLmdb(tmp_path).fetch(longest) == b"1"


def test_ids_too_long_for_a_file_name_are_refused(tmp_path: Path) -> None:
    with open_writer(tmp_path, "folder") as writer, pytest.raises(InputError, match="named xxx"):
        writer.put("x" * 253, b"1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_ends_the_run_and_more_space_continues_it(tmp_path: Path, kind: str) -> None:
    """The limit of a file's size stands for a full disk."""

    def write() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            with open_writer(tmp_path / kind, kind) as writer:
                writer.put("small", b"1" * 1000)
                writer.put("large", b"2" * 200_000)
        except RunError as error:
            os._exit(7 if "cannot be written" in str(error) else 8)

    assert in_child(write) == 7
    with open_writer(tmp_path / kind, kind) as writer:
        assert "large" not in writer
        for name, data in (("small", b"1" * 1000), ("large", b"2" * 200_000)):
            if name not in writer:
                writer.put(name, data)
    videos = open_videos(tmp_path / kind)
    assert [len(fetched(videos, name) or b"") for name in ("small", "large")] == [1000, 200_000]


def test_an_lmdb_on_a_full_disk_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1234})())
    with (
        largest_file(100_000),  # the library says "Input/output error"
        pytest.raises(RunError) as caught,
        open_writer(tmp_path, "lmdb") as writer,
    ):
        writer.put("large", b"2" * 200_000)
    assert "No space left on device. 1,234 bytes are free there" in str(caught.value)
    assert "Free some space" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_videos_take_the_place_of_others_where_they_can(tmp_path: Path, kind: str) -> None:
    with open_writer(tmp_path, kind) as writer:
        writer.put("a", b"A")
        assert writer.can_replace == (kind != "shards")
        if writer.can_replace:
            writer.replace("a", b"another")
    assert fetched(open_videos(tmp_path), "a") == (b"A" if kind == "shards" else b"another")


@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_are_not_utf8_are_stored(tmp_path: Path, kind: str) -> None:
    name = os.fsdecode(b"lat\xff1")
    with open_writer(tmp_path, kind) as writer:
        writer.put(name, b"1")
        with pytest.raises(InputError, match="not a file name"):
            writer.put("\ud800", b"2")  # half a character
    assert open_videos(tmp_path).video_ids() == [name]
    assert fetched(open_videos(tmp_path), name) == b"1"


@pytest.mark.parametrize("kind", KINDS)
def test_folders_with_something_else_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").touch()
    (tmp_path / "nested/part").mkdir(parents=True)
    (tmp_path / "nested/part/a.mp4").touch()
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars/0.tar", {"a.mp4": b"A"})
    with open_writer(tmp_path / "db", "lmdb") as writer:
        writer.put("a", b"A")
    kinds = {"videos": "folder", "nested": "folder", "tars": "shards", "db": "lmdb"}
    for name, own in kinds.items():
        if own != kind:
            with pytest.raises(InputError, match=f"{name} holds other files"):
                open_writer(tmp_path / name, kind)
    with pytest.raises(InputError, match="is a file"):
        open_writer(tmp_path / "videos/a.mp4", kind)
    with pytest.raises(InputError, match="one of folder, lmdb, shards"):
        open_writer(tmp_path / "new", "zip")
    if kind == "shards":
        with pytest.raises(InputError, match=r"'\.bin'"):
            open_writer(tmp_path / "new", kind, extension=".bin")


def test_a_damaged_lmdb_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match="cannot be written as an LMDB"):
        open_writer(tmp_path, "lmdb")
