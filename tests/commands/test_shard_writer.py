from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from alpro.commands import shard_writer
from alpro.commands.shard_writer import ShardWriter
from alpro.commands.video_writers import open_writer
from alpro.datasets.storage.shards import VideoShards
from alpro.datasets.storage.tar_reader import read_members
from alpro.errors import InputError, RunError
from tests.datasets.stored import content_of, in_child


class DyingFile(io.FileIO):
    """A file whose process dies in the middle of a certain call that changes it."""

    steps_left = 0

    def _step(self) -> bool:
        DyingFile.steps_left -= 1
        return DyingFile.steps_left < 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self._step():
            super().write(bytes(data)[: len(data) // 2])
            os._exit(9)
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        if self._step():
            os._exit(9)
        return super().truncate(size)


@pytest.mark.parametrize("name", ["v", "v" * 300])
def test_a_shard_survives_death_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Three videos in two shards; whatever is there is whole, and the rest can be added."""
    ids = [f"{name}{number}" for number in range(3)]

    def write(path: Path) -> None:
        with open_writer(path, "shards", shard_videos=2) as writer:
            for video_id in ids:
                if video_id not in writer:
                    writer.put(video_id, content_of(video_id))

    def open_dying(number: int, mode: str) -> DyingFile:
        return DyingFile(number, mode)

    for step in range(100):
        path = tmp_path / f"{step}"
        with monkeypatch.context() as dying:
            dying.setattr(shard_writer.os, "fdopen", open_dying)
            DyingFile.steps_left = step
            code = in_child(lambda path=path: write(path))  # type: ignore[misc]
        with open_writer(path, "shards", shard_videos=2) as writer:
            there = [video_id for video_id in ids if video_id in writer]
            assert there == ids[: len(there)]
            assert len(there) >= (step - 2) // 6, "what was put before is not lost"
        write(path)
        videos = VideoShards(path)
        assert [videos.fetch(video_id) for video_id in ids] == list(map(content_of, ids))
        assert all(read_members(shard).trouble is None for shard in path.glob("*.tar"))
        if code == 0:
            break
    assert 12 < step < 99


def test_shards_are_full_by_size_or_number(tmp_path: Path) -> None:
    with open_writer(tmp_path / "a", "shards", shard_bytes=5000) as writer:
        for number in range(5):
            writer.put(str(number), bytes(2000))
    with open_writer(tmp_path / "b", "shards", shard_videos=2) as writer:
        for number in range(5):
            writer.put(str(number), bytes(2000))
    with open_writer(tmp_path / "b", "shards") as writer:
        writer.put("more", b"in a shard of its own")
    counts = {
        folder: [len(read_members(path).members) for path in sorted((tmp_path / folder).iterdir())]
        for folder in "ab"
    }
    assert counts == {"a": [2, 2, 1], "b": [2, 2, 1, 1]}
    assert [path.name for path in sorted((tmp_path / "b").iterdir())][-1] == "000003.tar"


def test_webdataset_sees_each_id_as_a_sample(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    ids = ["a", "a.b", "a.c", "part.x/d.e", "50%"]
    with open_writer(tmp_path, "shards", shard_videos=2) as writer:
        for name in ids:
            writer.put(name, name.encode())
    shards = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    found = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["mp4"] for sample in found] == [name.encode() for name in ids]
    assert len({sample["__key__"] for sample in found}) == len(ids)


def test_members_have_keys_without_dots(tmp_path: Path) -> None:
    """What WebDataset makes of names: the key ends at the first dot of the base name."""
    with open_writer(tmp_path, "shards") as writer:
        for name in ("a.b", "p.q/c", "50%", "%2E"):
            writer.put(name, b"1")
    names = [member.name for member in read_members(tmp_path / "000000.tar").members]
    assert names == ["a%2Eb.mp4", "p.q/c.mp4", "50%25.mp4", "%252E.mp4"]
    assert VideoShards(tmp_path).video_ids() == ["%2E", "50%", "a.b", "p.q/c"]


def test_two_writers_do_not_share_a_shard(tmp_path: Path) -> None:
    first = ShardWriter(tmp_path, extension=".mp4", shard_bytes=10**9, shard_videos=100)
    first.put("a", b"A")

    def second() -> None:
        try:
            open_writer(tmp_path, "shards")
        except InputError as error:
            os._exit(7 if "another process writes" in str(error) else 8)

    assert in_child(second) == 7
    first.close(complete=True)
    assert VideoShards(tmp_path).video_ids() == ["a"]


def test_a_disk_error_is_not_reported_as_a_bad_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:  # noqa: ARG001
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with open_writer(tmp_path, "shards") as writer:
        writer.put("a", b"A")
        with monkeypatch.context() as failing:
            failing.setattr(os, "fdatasync", fail)
            with pytest.raises(RunError, match="No space left"):
                writer.put("b", b"B" * 5000)
        assert "b" not in writer
        writer.put("c", b"C")
    videos = VideoShards(tmp_path)
    assert [videos.fetch(name) for name in "abc"] == [b"A", None, b"C"]
