from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from alpro.datasets.annotations import read_captions
from alpro.datasets.storage import open_videos
from tests.commands.official_files import convert, read_jsonl


def write_shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def described(**values: object) -> bytes:
    return json.dumps(values).encode()


def test_captions_of_shards_are_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    last = {"000010000.json": described(text="zwei\nMänner"), "000010000.avi": b""}
    write_shard(shards / "00001.tar", last)
    write_shard(
        shards / "00000.tar",
        {
            "000000000.mp4": b"video",
            "000000000.json": described(caption="of the JSON", key="000000000"),
            "000000000.txt": b"of the text ",
            "./000000001.txt": b"",
            "./000000001.json": described(caption="  a dog runs"),
            "./000000001.mp4": b"video",
            "000000002.mp4": b"video",
            "000000002.json": described(caption=None),
            "000000003.txt": b"no video",
            "000000003.jpg": b"picture",
        },
    )
    assert convert("webdataset", shards, tmp_path / "out") == 0
    assert read_jsonl(tmp_path / "out" / "train.jsonl") == [
        {"caption": "of the text", "video_id": "000000000"},
        {"caption": "a dog runs", "video_id": "000000001"},
        {"caption": "zwei Männer", "video_id": "000010000"},
    ]
    assert len(read_captions(tmp_path / "out" / "train.jsonl")) == 3
    told = capsys.readouterr().out
    assert "train.jsonl: 3 captions, one per video" in told
    assert "note: 1 sample without caption left out" in told
    assert "note: 1 sample without video left out" in told


def test_shard_ids_are_those_of_training(tmp_path: Path) -> None:
    members = {"b/a%2E1.mp4": b"", "b/a%2E1.txt": b"a cat", "b/c.d.mp4": b"", "b/c.d.txt": b"a dog"}
    shard = write_shard(tmp_path / "shards" / "0.tar", members)
    assert convert("webdataset", shard, tmp_path / "out") == 0
    ids = [row["video_id"] for row in read_jsonl(tmp_path / "out" / "train.jsonl")]
    assert ids == ["b/a.1", "b/c.d"]
    assert open_videos(shard.parent).missing(ids) == []


def test_the_split_flag_names_the_output_file(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", {"a.txt": b"a cat", "a.webm": b""})
    assert convert("webdataset", shard, tmp_path / "out", "--split", "val") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["val.jsonl"]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.mp4": b"video"}, "no sample with a video and a caption in 1 shard"),
        ({"a.mp4": b"", "a.json": b"{"}, "a.tar: a.json: not JSON"),
        ({"a.mp4": b"", "a.txt": b"\xff"}, "a.tar: a.txt: not UTF-8 text"),
    ],
)
def test_wrong_shards_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], members: dict[str, bytes], said: str
) -> None:
    shard = write_shard(tmp_path / "a.tar", members)
    assert convert("webdataset", shard, tmp_path / "out") == 2
    assert said in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_damaged_and_duplicate_shards_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_shard(tmp_path / "a.tar", {"a.txt": b"a cat", "a.mp4": b"v" * 2000})
    copy = tmp_path / "b.tar"
    copy.write_bytes(shard.read_bytes())
    assert convert("webdataset", [shard, copy], tmp_path / "out") == 2
    assert "key 'a' is in " in capsys.readouterr().err
    shard.write_bytes(shard.read_bytes()[:2500])
    assert convert("webdataset", shard, tmp_path / "out") == 2
    assert "is it complete?" in capsys.readouterr().err
    shard.write_bytes(b"no tar file")
    assert convert("webdataset", shard, tmp_path / "out") == 2
    assert "cannot be read as an uncompressed tar file" in capsys.readouterr().err


def test_sources_without_shards_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("webdataset", tmp_path, tmp_path / "out") == 2
    assert "no .tar file in this folder" in capsys.readouterr().err
    assert convert("webdataset", tmp_path / "a.csv", tmp_path / "out") == 2
    assert "a.csv: neither a folder nor a .tar file" in capsys.readouterr().err
