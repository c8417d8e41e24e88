from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
from pathlib import Path

import lmdb
import pytest

from src.datasets.storage import VideoLmdb, open_videos
from src.datasets.storage.lmdb_entries import read_entries
from src.errors import InputError
from tests.datasets.stored import IDS, content_of, in_child, store


def write_as_clipbert(path: Path, videos: dict[str, bytes]) -> None:
    environment = lmdb.open(str(path), map_size=1 << 26)
    with environment.begin(write=True) as transaction:
        for name, data in videos.items():
            transaction.put(str(name).encode("utf-8"), data)
    environment.close()


def test_clipberts_layout_is_read_as_it_is(tmp_path: Path) -> None:
    write_as_clipbert(tmp_path / "db", {"video7010": b"one", "tumblr_né.1": b"two", "k.mp4": b"x"})
    videos = open_videos(tmp_path / "db")
    assert isinstance(videos, VideoLmdb)
    assert videos.fetch("video7010") == b"one"
    assert videos.fetch("tumblr_né.1") == b"two"
    assert videos.fetch("k") == b"x"
    assert videos.missing(["video7010", "k", "tumblr_né"]) == ["tumblr_né"]
    assert videos.sizes() == {"video7010": 3, "tumblr_né.1": 3, "k.mp4": 1}


def change_at_random(path: Path, rng: random.Random) -> dict[bytes, int]:
    """Put and delete in several transactions; returns what is there in the end."""
    environment = lmdb.open(str(path), map_size=1 << 26)
    there: dict[bytes, int] = {}
    for _ in range(4):
        with environment.begin(write=True) as transaction:
            for _ in range(rng.choice([1, 30, 300])):
                key = rng.randbytes(rng.choice([1, 3, 20, 200, 511])).hex()[:511].encode()
                size = rng.choice([0, 1, 100, 2000, 2030, 4080, 5000, 50_000])
                transaction.put(key, bytes(size))
                there[key] = size
            for key in rng.sample(sorted(there), len(there) // 3):
                transaction.delete(key)
                del there[key]
    environment.close()
    return there


@pytest.mark.parametrize("seed", range(8))
def test_keys_and_sizes_are_those_that_the_library_tells(tmp_path: Path, seed: int) -> None:
    there = change_at_random(tmp_path / "db", random.Random(seed))
    assert read_entries(tmp_path / "db/data.mdb") == there
    videos = VideoLmdb(tmp_path / "db")
    assert videos.video_ids() == sorted(key.decode() for key in there)
    assert all(len(videos.fetch(key.decode()) or b"") == size for key, size in there.items())


def test_an_empty_one_has_no_entries(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path)).close()
    assert read_entries(tmp_path / "data.mdb") == {}
    assert VideoLmdb(tmp_path).missing(["a"]) == ["a"]


def test_what_is_laid_out_otherwise_is_left_to_the_library(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path / "db"), max_dbs=1)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", b"A")
        environment.open_db(b"within", txn=transaction)
    environment.close()
    assert read_entries(tmp_path / "db/data.mdb") is None
    assert "a" in VideoLmdb(tmp_path / "db").video_ids()
    assert VideoLmdb(tmp_path / "db").missing(["a", "b"]) == ["b"]


def test_storages_of_one_file_share_what_is_open(tmp_path: Path) -> None:
    store(tmp_path / "db", "lmdb")
    (tmp_path / "link").symlink_to(tmp_path / "db")
    names = ("db", "db", "link", "db/data.mdb", "link/data.mdb")
    storages = [VideoLmdb(tmp_path / name) for name in names]
    assert [videos.fetch("a") for videos in storages] == [content_of("a")] * 5
    del storages[:4]
    assert storages[0].fetch("x.y") == content_of("x.y")


def test_it_is_closed_with_the_last_storage_and_can_be_written_again(tmp_path: Path) -> None:
    videos = store(tmp_path / "db", "lmdb")
    assert videos.fetch("a") is not None
    del videos
    environment = lmdb.open(str(tmp_path / "db"), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(b"more", b"1")
    environment.close()
    assert VideoLmdb(tmp_path / "db").fetch("more") == b"1"


def test_it_can_grow_while_it_is_in_use(tmp_path: Path) -> None:
    """Its reader has to be another process, as the library opens a file once in each."""
    write_as_clipbert(tmp_path / "db", {"a": b"A"})
    go_on, has_read = multiprocessing.Event(), multiprocessing.Event()

    def read() -> None:
        videos = VideoLmdb(tmp_path / "db")
        assert videos.fetch("a") == b"A"
        has_read.set()
        assert go_on.wait(60)
        assert videos.fetch("k29") == bytes(1_000_000)
        assert videos.missing(["a", "k29", "z"]) == ["z"]

    reader = multiprocessing.Process(target=read)
    reader.start()
    assert has_read.wait(60)
    write_as_clipbert(tmp_path / "db", {f"k{i}": bytes(1_000_000) for i in range(30)})
    go_on.set()
    reader.join()
    assert reader.exitcode == 0


def test_addresses_may_be_few(tmp_path: Path) -> None:
    store(tmp_path / "db", "lmdb")

    def read() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 37, 1 << 37))  # bytes, as by `ulimit -v`
        assert VideoLmdb(tmp_path / "db").fetch("a") == content_of("a")

    assert in_child(read) == 0


def test_a_read_only_folder_will_do(tmp_path: Path) -> None:
    store(tmp_path / "db", "lmdb")
    (tmp_path / "db/lock.mdb").unlink()
    before = {path.name for path in (tmp_path / "db").iterdir()}
    assert VideoLmdb(tmp_path / "db").video_ids() == sorted(IDS)
    assert {path.name for path in (tmp_path / "db").iterdir()} == before, "nothing is written"


def test_a_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    write_as_clipbert(tmp_path / "db", {str(i): bytes(20_000) for i in range(20)})
    size = (tmp_path / "db/data.mdb").stat().st_size
    os.truncate(tmp_path / "db/data.mdb", size // 2)
    with pytest.raises(InputError, match=rf"data\.mdb was cut short.*{size // 2:,}.*{size:,}"):
        VideoLmdb(tmp_path / "db").fetch("1")


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(InputError, match=r"cannot be read as an LMDB.*INVALID"):
        open_videos(tmp_path).fetch("a")


def test_the_library_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "db", "lmdb")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(InputError, match="pip install lmdb"):
        open_videos(tmp_path / "db")
