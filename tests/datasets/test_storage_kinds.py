"""What all kinds of storage have in common."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.decoding import make_decoder
from alpro.datasets.storage import VideoFolder, VideoStorage, open_videos, storage_kind
from alpro.datasets.storage.lmdb_videos import VideoLmdb
from alpro.datasets.storage.shards import VideoShards
from alpro.datasets.video_datasets import FrameReader
from alpro.errors import InputError
from tests.datasets.clips import SMALL, indices_of, write_clip
from tests.datasets.stored import IDS, KINDS, content_of, fetched, store, write_tar
from tests.shared_data import shared_data

TYPES = {"folder": VideoFolder, "lmdb": VideoLmdb, "shards": VideoShards}


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_distinct_and_are_read_back(tmp_path: Path, kind: str) -> None:
    videos = store(tmp_path / kind, kind)
    assert isinstance(videos, TYPES[kind])
    assert videos.root == tmp_path / kind
    assert {video_id: fetched(videos, video_id) for video_id in IDS} == {
        video_id: content_of(video_id) for video_id in IDS
    }
    assert videos.missing(["z", *IDS, "x", "z", "\ud800", ""]) == ["z", "x", "\ud800", ""]
    assert [videos.fetch(video_id) for video_id in ("z", "x", "\ud800", "", "a" * 600)] == [
        None
    ] * 5
    assert len(videos.listed_names()) == len(IDS)


@pytest.mark.parametrize("kind", KINDS)
def test_all_ids_are_listed_in_order(tmp_path: Path, kind: str) -> None:
    ids = ("b", "A", "x.y", "é", "0001")
    assert store(tmp_path / kind, kind, ids).video_ids() == ["0001", "A", "b", "x.y", "é"]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_may_carry_an_extension(tmp_path: Path, kind: str) -> None:
    videos = store(tmp_path / kind, kind, ("a", "b.c"))
    assert [fetched(videos, name) for name in ("a.mp4", "b.c.MP4")] == [
        *(content_of("a"), content_of("b.c"))
    ]
    assert videos.missing(["a.mp4", "b.c.mp4", "a.txt", "b"]) == ["a.txt", "b"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_video_answers_for_a_missing_id(tmp_path: Path, kind: str) -> None:
    videos = store(tmp_path / kind, kind, ("v_1.5", "part/w.1", "x.y.z", "50%"))
    asked = ["v_1", "v_1%2E5", "part/w", "w", "x", "x.y", "50", "50%25", "v_1.6", "v_1.5.1"]
    assert videos.missing(asked) == asked
    assert [videos.fetch(video_id) for video_id in asked] == [None] * len(asked)
    assert videos.missing(["v_1.5", "w.1", "part/w.1", "x.y.z"]) == (
        ["w.1"] if kind == "lmdb" else []  # whose ids say nothing of folders
    )


def sizes(videos: VideoStorage) -> list[int]:
    return [len(fetched(videos, video_id) or b"") for video_id in IDS]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_storages_are_opened_in_each_process(tmp_path: Path, method: str) -> None:
    storages = [store(tmp_path / kind, kind) for kind in KINDS]
    expected = [[len(content_of(video_id)) for video_id in IDS]] * 3
    assert list(map(sizes, storages)) == expected  # the parent has used them already
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(sizes, [*storages, *storages], chunksize=1) == expected * 2
    assert list(map(sizes, storages)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_storages_are_small_when_they_are_sent(tmp_path: Path, kind: str) -> None:
    videos = store(tmp_path / kind, kind, tuple(f"video {i}" for i in range(300)))
    assert videos.missing(["nowhere"]) == ["nowhere"]
    sent = pickle.dumps(videos)
    assert len(sent) < 1000
    assert len(pickle.loads(sent).video_ids()) == 300


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_are_the_same_from_each_kind(tmp_path: Path, decoder: str) -> None:
    clips = [write_clip(tmp_path / "clip.mp4")]
    if (shared := shared_data()) is not None:
        names = ("mmcv_test", "video7010", "vllama_dog_barking")
        clips += [shared / "real/videos" / f"{name}.mp4" for name in names]
    for kind in KINDS:
        with pytest.importorskip("alpro.commands.video_writers").open_writer(
            tmp_path / kind, kind
        ) as writer:
            for clip in clips:
                writer.put(clip.stem, clip)
    readers = [
        FrameReader(open_videos(tmp_path / kind), make_decoder(decoder), 4, "uniform", SMALL)
        for kind in KINDS
    ]
    for clip in clips:
        folder, *others = (reader.read(clip.stem, rng=None) for reader in readers)
        assert all(np.array_equal(folder, frames) for frames in others)
    assert indices_of(readers[1].read("clip", rng=None)[0]) == sorted(
        set(indices_of(readers[0].read("clip", rng=None)[0]))
    )


def test_the_kind_of_storage_follows_from_its_content(tmp_path: Path) -> None:
    for name in (
        *("videos/a.mp4", "videos/a.tar", "nested/part/a.mp4", "empty/notes.txt"),
        *("unpacked/orig.tar", "unpacked/train/x.mp4", "deep/orig.tar", "deep/by/year/x.AVI"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("thumbs/a.jpg", "thumbs/b/a.mkv", "frames/a/1.png", "stills/A.JPG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    store(tmp_path / "db", "lmdb")
    store(tmp_path / "tars", "shards")
    (tmp_path / "tars/frames").mkdir()
    (tmp_path / "tars/frames/0.jpg").touch()
    (tmp_path / "file.lmdb").write_bytes((tmp_path / "db/data.mdb").read_bytes())
    write_tar(tmp_path / "one.tar", {"a.mp4": b"A"})
    kinds = {
        **{"videos": "folder", "nested": "folder", "empty": "folder", "nowhere": "folder"},
        **{"db": "lmdb", "db/data.mdb": "lmdb", "file.lmdb": "lmdb"},
        **{"unpacked": "folder", "deep": "folder", "thumbs": "folder"},
        **{"frames": "images", "stills": "images"},
        **{"tars": "shards", "tars/000000.tar": "shards", "one.tar": "shards"},
    }
    assert {name: storage_kind(tmp_path / name) for name in kinds} == kinds
    assert fetched(open_videos(tmp_path / "file.lmdb"), "A") == content_of("A")
    assert fetched(open_videos(tmp_path / "db/data.mdb"), "A") == content_of("A")
    assert fetched(open_videos(tmp_path / "one.tar"), "a") == b"A"
    assert open_videos(tmp_path / "videos", extension=".avi").fetch("a") is not None
    assert open_videos(tmp_path / "unpacked").missing(["x"]) == []


def test_messages_name_the_kind_of_storage_unless_it_is_a_folder(tmp_path: Path) -> None:
    for kind, prefix in (("folder", ""), ("lmdb", "the LMDB "), ("shards", "the tar shards in ")):
        videos = store(tmp_path / kind, kind)
        assert videos.described == f"{prefix}{tmp_path / kind}"
    shard = tmp_path / "shards/000000.tar"
    assert open_videos(shard).described == f"the shard {shard}"


def test_paths_that_hold_nothing_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere not found.*img"):
        open_videos(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"notes\.txt is a file, not a folder"):
        open_videos(tmp_path / "notes.txt")
    for storage in (VideoLmdb, VideoShards):
        with pytest.raises(InputError, match=f"no (LMDB|tar).*{tmp_path.name}|{tmp_path.name}.*no"):
            storage(tmp_path)
