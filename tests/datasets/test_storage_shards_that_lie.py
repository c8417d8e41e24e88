"""Tar shards, and what is kept of them, that hold anything."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.storage import shards
from alpro.datasets.storage.index_file import read_index, stamp_of, write_index
from alpro.datasets.storage.shards import VideoShards, shards_in
from alpro.errors import InputError
from tests.datasets.stored import write_tar


def changed_index(root: Path, **changes: object) -> None:
    """Write an index that is whole, of the shards as they are, with other arrays."""
    stamp = stamp_of(shards_in(root))
    kept = read_index(root, stamp, shards._DTYPES)
    assert kept is not None
    notes, arrays = kept
    for name, values in changes.items():
        arrays[name] = np.array(values).astype(shards._DTYPES[name])
    write_index(root, stamp, notes, arrays)


@pytest.mark.parametrize(
    "changes",
    [
        {"places": [-512, 0, 1000, 1536, 2048, 1000]},
        {"places": [0, 512, -1, 1536, 2048, 1000]},
        {"places": [0, 512, 2**62, 1536, 2048, 1000]},
        {"places": [0, 2**62, 2**62, 1536, 2048, 1000]},
        {"places": [2**60, 512, 1000, 1536, 2048, 1000]},
        {"places": [1536, 2048, 1000, 0, 512, 1000]},
        {"places": [0, 512, 1000, 0, 512, 1000]},
        {"places": [0, 512, 999, 1536, 2048, 1000]},
        {"places": [0, 500, 1000, 1536, 2048, 1000]},
        {"places": [0, 512, 1000]},
        {"places": [0, 512]},
        {"places": []},
        {"shard": [0, 1]},
        {"shard": [-1, 0]},
        {"shard": [0]},
        {"ids": list(b"ba")},
        {"ids": list(b"xy")},
        {"ids": list(b"aa")},
        {"starts": [0, 1]},
        {"starts": [0, 2, 1]},
        {"starts": [0, 1, 2**40]},
        {"starts": []},
    ],
)
def test_an_index_with_false_locations_is_rebuilt(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    write_tar(tmp_path / "0.tar", {f"{name}.mp4": name.encode() * 1000 for name in "ab"})
    assert VideoShards(tmp_path).video_ids() == ["a", "b"]
    changed_index(tmp_path, **changes)
    videos = VideoShards(tmp_path)
    assert videos.video_ids() == ["a", "b"]
    assert [videos.fetch(name) for name in "ab"] == [b"a" * 1000, b"b" * 1000]


def test_an_index_with_one_false_location_is_named(tmp_path: Path) -> None:
    """Not every member is looked at in advance, but each when it is read."""
    names = [f"{number:04}" for number in range(200)]
    write_tar(tmp_path / "0.tar", {f"{name}.mp4": name.encode() for name in names})
    assert VideoShards(tmp_path).video_ids() == names
    places = [[1024 * number, 1024 * number + 512, 4] for number in range(200)]
    places[7], places[8] = places[8], places[7]
    changed_index(tmp_path, places=np.ravel(places))
    videos = VideoShards(tmp_path)
    assert videos.fetch("0009") == b"0009"
    with pytest.raises(InputError, match=r"0\.tar has changed.*delete the index.*videos\.index"):
        videos.fetch("0007")


def header(name: str, size: bytes, *, kind: bytes = b"0", link: str = "") -> bytes:
    """A header of a tar file, with a right sum and whatever it says."""
    block = bytearray(512)
    for start, field in (
        *((0, name.encode()), (100, b"0000644\0"), (108, b"0000000\0"), (116, b"0000000\0")),
        *((124, size), (136, b"00000000000\0"), (148, b" " * 8), (156, kind)),
        *((157, link.encode()), (257, b"ustar\x0000")),
    ):
        block[start : start + len(field)] = field
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def binary(number: int) -> bytes:
    """A size as GNU's tar writes those that octal digits cannot hold."""
    return (b"\x80" if number >= 0 else b"\xff") + (number % (1 << 88)).to_bytes(11, "big")


def pax(text: bytes) -> bytes:
    return header("pax", b"%011o\0" % len(text), kind=b"x") + text.ljust(1024, b"\0")


SIZE = b"%011o\0" % 600
GOOD = header("good.mp4", SIZE) + b"g" * 600 + bytes(424)
ODD = header("odd.mp4", SIZE) + b"o" * 600 + bytes(424)


@pytest.mark.parametrize(
    "member",
    [
        *(header("odd.mp4", binary(size)) for size in (-1, -512, -1536, -(2**80))),
        *(header("odd.mp4", binary(size)) for size in (2**40, 2**62, 2**63 - 1, 2**87)),
        *(header("odd", binary(size), kind=b"x") for size in (-1, 2**40)),
        *(header("odd", binary(size), kind=b"L") for size in (-1, 2**40)),
        *(header("odd", binary(size), kind=b"5") for size in (-512, 2**62)),
        *(pax(text) + ODD for text in (b"14 size=-512\n", b"28 size=9999999999999999999\n")),
        *(pax(text) + ODD for text in (b"99 path=x\n", b"0 path=x\n", b"16 path=a\0b.mp4\n")),
        pax(b"24 path=a/../../odd.mp4\n") + ODD,
        pax(b"9" * 1000) + ODD,
        (header("long", b"%011o\0" % 8, kind=b"L") + b"odd.mp4".ljust(512, b"\0")) * 3000 + ODD,
        header("odd.mp4", SIZE, kind=b"2", link="/etc/passwd"),
        header("odd.mp4", SIZE, kind=b"1", link="/etc/passwd"),
        header("odd.mp4", bytes(12), kind=b"1", link="odd.mp4"),
        *(header("odd.mp4", bytes(12), kind=kind) for kind in (b"3", b"4", b"6", b"S")),
        *(header(f"{name}.mp4", bytes(12)) for name in ("", ".", "..", "../..", "/", "a/..")),
    ],
)
def test_headers_that_lie_lose_no_more_than_what_follows(tmp_path: Path, member: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(GOOD + member + bytes(1024))
    videos = VideoShards(tmp_path)
    assert videos.video_ids() == ["good"]
    assert videos.fetch("good") == b"g" * 600


@pytest.mark.parametrize("name", ["../good", "/etc/good", ".././good", "../../../good"])
def test_names_of_members_lead_nowhere(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "0.tar", {f"{name}.mp4": b"G"})
    videos = VideoShards(tmp_path)
    (video_id,) = videos.video_ids()
    assert video_id == name.removeprefix("/").replace("../", "").replace("./", "")
    assert videos.fetch(video_id) == videos.fetch("good") == b"G"
    assert videos.missing([name, "good"]) == [name]


def test_folders_and_pipes_are_no_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": b"A"})
    (tmp_path / "1.tar").mkdir()
    os.mkfifo(tmp_path / "2.tar")
    (tmp_path / "3.tar").symlink_to("nowhere")
    os.mkfifo(tmp_path / ".videos.index")
    assert VideoShards(tmp_path).video_ids() == ["a"]


def test_the_index_is_written_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_tar(tmp_path / "set/0.tar", {"a.mp4": b"A"})
    (tmp_path / "precious").write_text("text")
    for name in (".videos.index", f".videos.index.{os.getpid()}.tmp"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "precious")
    assert VideoShards(tmp_path / "set").video_ids() == ["a"]
    assert (tmp_path / "precious").read_text() == "text"


def test_the_index_of_shards_with_odd_names_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tar(tmp_path / "0\udcff.tar", {"a.mp4": b"A", "b\udcfe.mp4": b"B"})
    os.truncate(path, 2048)  # without an end mark, which is kept as well
    assert VideoShards(tmp_path).video_ids() == ["a", "b\udcfe"]
    monkeypatch.setattr(shards, "read_members", None)  # so that it would fail
    assert VideoShards(tmp_path).fetch("b\udcfe") == b"B"


@pytest.mark.parametrize(
    "head",
    [
        *("[]", "null", "{}", "1", '"text"', "[" * 5000, "{", "\\ud800"),
        '{"format": 3, "stamp": STAMP, "bytes": {"ids": -1, "starts": 1e9}, "notes": {}}',
        '{"format": 3, "stamp": STAMP, "bytes": {"ids": 1, "starts": 16}}',
        '{"format": 3, "stamp": STAMP, "bytes": [], "notes": null}',
    ],
)
def test_an_index_with_an_arbitrary_head_is_rebuilt(tmp_path: Path, head: str) -> None:
    write_tar(tmp_path / "0.tar", {"a.mp4": b"A"})
    assert VideoShards(tmp_path).video_ids() == ["a"]
    text = head.replace("STAMP", json.dumps(stamp_of(shards_in(tmp_path)))).encode()
    body = len(text).to_bytes(8, "little") + text + bytes(100)
    digest = hashlib.blake2b(body, digest_size=16).digest()
    (tmp_path / ".videos.index").write_bytes(digest + body)
    assert VideoShards(tmp_path).video_ids() == ["a"]
