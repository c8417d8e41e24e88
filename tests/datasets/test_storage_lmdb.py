from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import resource
import struct
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import lmdb
import lmdb.verify
import numpy as np
import pytest

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.storage import open_videos
from alpro.datasets.storage.index_file import Arrays, PackedIds, read_index, stamp_of, write_index
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.errors import InputError
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
    assert videos.video_ids() == ["k.mp4", "tumblr_né.1", "video7010"]


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
def test_videos_are_those_that_were_put(tmp_path: Path, seed: int) -> None:
    there = change_at_random(tmp_path / "db", random.Random(seed))
    videos = VideoLmdb(tmp_path / "db")
    assert videos.video_ids() == sorted(key.decode() for key in there)
    assert all(len(videos.fetch(key.decode()) or b"") == size for key, size in there.items())


def test_an_empty_lmdb_has_no_entries(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path)).close()
    assert VideoLmdb(tmp_path).missing(["a"]) == ["a"]


def test_an_lmdb_with_a_named_database_is_read(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path / "db"), max_dbs=1)
    with environment.begin(write=True) as transaction:
        transaction.put(b"a", b"A")
        environment.open_db(b"within", txn=transaction)
    environment.close()
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


def test_an_lmdb_is_closed_with_the_last_storage(tmp_path: Path) -> None:
    videos = store(tmp_path / "db", "lmdb")
    assert videos.fetch("a") is not None
    del videos
    environment = lmdb.open(str(tmp_path / "db"), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(b"more", b"1")
    environment.close()
    assert VideoLmdb(tmp_path / "db").fetch("more") == b"1"


def test_an_lmdb_can_grow_while_it_is_in_use(tmp_path: Path) -> None:
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


def test_an_lmdb_opens_with_few_addresses(tmp_path: Path) -> None:
    store(tmp_path / "db", "lmdb")

    def read() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 37, 1 << 37))  # bytes, as by `ulimit -v`
        assert VideoLmdb(tmp_path / "db").fetch("a") == content_of("a")

    assert in_child(read) == 0


def test_a_folder_that_must_not_be_written_to_will_do(tmp_path: Path) -> None:
    store(tmp_path / "db", "lmdb")
    (tmp_path / "db/lock.mdb").unlink()
    (tmp_path / "db/.videos.index").mkdir()  # as good as one
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


def test_a_missing_lmdb_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "db", "lmdb")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(InputError, match="pip install lmdb"):
        open_videos(tmp_path / "db")


@pytest.fixture
def num_verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that the library's verifier has gone through."""
    verified: list[str] = []
    verify = lmdb.verify.verify

    def pluralize(path: str, subdir: bool | None = None) -> list[str]:
        verified.append(path)
        return verify(path, subdir)

    monkeypatch.setattr(lmdb.verify, "verify", pluralize)
    return verified


def test_keys_are_kept_until_the_file_changes(tmp_path: Path, num_verified: list[str]) -> None:
    store(tmp_path, "lmdb")
    assert VideoLmdb(tmp_path).missing(IDS) == []
    assert VideoLmdb(tmp_path).video_ids() == sorted(IDS)
    assert VideoLmdb(tmp_path).fetch("a") == content_of("a")
    assert len(num_verified) == 1
    write_as_clipbert(tmp_path, {"more": b"M"})
    assert VideoLmdb(tmp_path).missing(["more", "a", "z"]) == ["z"]
    assert len(num_verified) == 2


def test_workers_do_not_verify_again(tmp_path: Path, num_verified: list[str]) -> None:
    videos = store(tmp_path, "lmdb")
    (tmp_path / ".videos.index").mkdir()  # nothing is kept
    assert videos.missing(IDS) == []
    sent = pickle.loads(pickle.dumps(videos))
    assert [sent.fetch(name) for name in IDS] == [content_of(name) for name in IDS]
    assert len(num_verified) == 1


def keep(root: Path, keys: list[bytes]) -> None:
    """An index that is whole, of the file as it is, whatever its keys are."""
    write_index(root, stamp_of([root / "data.mdb"]), {}, PackedIds.pack(keys))


@pytest.mark.parametrize(
    "keys",
    [
        [b"not there"],
        [b"a", b"b", b"c"],
        [b"b", b"a"],
        [b""],
        [b"a", b"a"],
        [b"a" * 1000],
    ],
)
def test_keys_that_are_not_there_are_not_believed(tmp_path: Path, keys: list[bytes]) -> None:
    store(tmp_path, "lmdb", ("a", "b"))
    keep(tmp_path, keys)
    assert VideoLmdb(tmp_path).video_ids() == ["a", "b"]
    kept = read_index(tmp_path, stamp_of([tmp_path / "data.mdb"]), PackedIds.DTYPES)
    assert kept is not None
    assert list(PackedIds(kept[1])) == [b"a", b"b"], "it is written again"


@pytest.mark.parametrize("starts", [[], [0], [0, 99], [5, 1], [0, -1, 1], [-1, 1], [0, 2**62]])
def test_offsets_that_lead_nowhere_are_not_believed(tmp_path: Path, starts: list[int]) -> None:
    store(tmp_path, "lmdb", ("a",))
    arrays: Arrays = {"ids": np.frombuffer(b"a", np.uint8), "starts": np.array(starts, np.int64)}
    write_index(tmp_path, stamp_of([tmp_path / "data.mdb"]), {}, arrays)
    assert VideoLmdb(tmp_path).video_ids() == ["a"]


def lead_in_circles(path: Path) -> None:
    """Let each child of the root be the root itself, as a damaged pointer may."""
    data = bytearray(path.read_bytes())
    page_size = 4096
    meta = max((0, 1), key=lambda number: data[number * page_size + 144])  # the later transaction
    (root,) = struct.unpack_from("<Q", data, meta * page_size + 128)
    (end,) = struct.unpack_from("<H", data, root * page_size + 12)
    assert data[root * page_size + 10] & 1, "a page of branches"
    for pointer in struct.unpack_from(f"<{(end - 16) // 2}H", data, root * page_size + 16):
        struct.pack_into("<IH", data, root * page_size + pointer, root, 0)
    path.write_bytes(data)


def test_a_tree_that_leads_in_circles_is_named(tmp_path: Path) -> None:
    write_as_clipbert(tmp_path, {f"v{i:04}": bytes(100) for i in range(200)})
    lead_in_circles(tmp_path / "data.mdb")
    for look in (VideoLmdb.video_ids, partial(VideoLmdb.missing, video_ids=["v"])):
        with pytest.raises(InputError, match=r"data\.mdb is damaged \(.*\); copy it again"):
            look(VideoLmdb(tmp_path))
    with pytest.raises(InputError, match="is damaged"):
        VideoLmdb(tmp_path).fetch("v0001")


def test_damaged_pages_do_not_end_the_process(tmp_path: Path) -> None:
    """Without a look at the file first, one in thirty of these did."""
    rng = random.Random(0)
    write_as_clipbert(tmp_path, {f"v{i:04}": bytes(rng.choice([9, 9000])) for i in range(60)})
    whole = (tmp_path / "data.mdb").read_bytes()
    pages = range(0, len(whole), 4096)
    in_tree = [page for page in pages if whole[page + 10] & 0b11]  # branches and leaves

    def read_all() -> None:
        num_refused = 0
        for _ in range(150):
            damaged = bytearray(whole)
            page = rng.choice(in_tree if rng.random() < 0.5 else pages)
            for _ in range(rng.choice([1, 3, 50])):
                damaged[page + rng.randrange(rng.choice([60, 200, 4096]))] = rng.randrange(256)
            (tmp_path / "data.mdb").write_bytes(damaged)
            try:
                videos = VideoLmdb(tmp_path)
                for video_id in videos.video_ids():
                    with suppress(VideoReadError):
                        videos.fetch(video_id)
            except InputError:
                num_refused += 1
        assert 50 < num_refused < 150

    assert in_child(read_all) == 0


def test_a_pipe_in_place_of_an_lmdb_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.mdb")
    with pytest.raises(InputError, match=r"data\.mdb is a pipe, not a file"):
        VideoLmdb(tmp_path)
