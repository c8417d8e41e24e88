from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from src.datasets.decoding import VideoReadError
from src.datasets.storage import VideoShards, shard_index
from src.datasets.storage.index_file import read_index, stamp_of, write_index
from src.datasets.storage.shard_index import shards_in
from src.errors import InputError
from tests.datasets.stored import IDS, content_of, fetched, store, write_tar

SAMPLE = {"{0}.mp4": b"video {0}", "{0}.txt": b"caption", "{0}.json": b"{}", "{0}.jpg": b"frame"}


def samples(*keys: str) -> dict[str, bytes]:
    """Members as WebDataset's writer makes them."""
    return {
        name.format(key): data.replace(b"{0}", key.encode())
        for key in keys
        for name, data in SAMPLE.items()
    }


def test_webdatasets_layout_is_read_in_any_order(tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", samples("000000000", "000000001"))
    write_tar(tmp_path / "00001.tar", samples("000010000"))
    videos = VideoShards(tmp_path)
    assert videos.video_ids() == ["000000000", "000000001", "000010000"]
    for video_id in reversed(videos.video_ids()):
        assert videos.fetch(video_id) == f"video {video_id}".encode()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_as_any_tar_writes_them(tmp_path: Path, form: int) -> None:
    names = ["./videos/a.mp4", "videos/é.AVI", f"{'f' * 90}/{'n' * 90}.webm", "x.y.mp4"]
    if form != tarfile.USTAR_FORMAT:
        names.append(f"{'n' * 300}.mkv")
    members = {name: name.encode() for name in names}
    write_tar(tmp_path / "a.tar", members | {"videos/._a.mp4": b"resource fork"}, form=form)
    videos = VideoShards(tmp_path / "a.tar")
    asked = ["videos/a", "é", "é.avi", f"{'f' * 90}/{'n' * 90}", "n" * 90, "x.y"]
    assert videos.missing([*asked, "._a"]) == ["._a"]
    assert [videos.fetch(name) for name in ("a", "é", "n" * 90, "x.y")] == [
        members[names[i]] for i in range(4)
    ]
    if form != tarfile.USTAR_FORMAT:
        assert videos.fetch("n" * 300) == members[names[-1]]


def test_other_files_and_second_names(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"A")
    os.link(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "c.mp4").symlink_to("a.mp4")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.mp4", "b.mp4", "c.mp4"):
            tar.add(tmp_path / name, name)
    videos = VideoShards(tmp_path / "s.tar")
    assert videos.video_ids() == ["a", "b"]
    assert videos.fetch("b") == b"A"


def test_two_videos_of_one_key_in_one_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"k.avi": b"avi", "k.mp4": b"mp4", "k.webm": b"webm"})
    videos = VideoShards(tmp_path)
    assert videos.video_ids() == ["k", "k.avi", "k.webm"]
    assert [videos.fetch(name) for name in videos.video_ids()] == [b"mp4", b"avi", b"webm"]


@pytest.mark.parametrize(
    "names", [("a.avi.mp4", "a.mp4", "a.avi"), ("a.mp4", "a.avi", "a.avi.mp4")]
)
def test_no_video_takes_the_place_of_another(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_tar(tmp_path / "0.tar", dict.fromkeys(names, b""))
    with pytest.raises(InputError, match=r"hold video id 'a\.avi' \(a\.avi\.mp4, a\.avi\)"):
        VideoShards(tmp_path).video_ids()


def test_one_key_in_two_shards_is_an_error(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"k.mp4": b"1", "part/k.mp4": b"2"})
    write_tar(tmp_path / "1.tar", {"k.avi": b"3"})
    with pytest.raises(InputError, match=r"0\.tar and .*1\.tar both hold video id 'k'.*k\.avi"):
        VideoShards(tmp_path).fetch("k")


def test_one_name_twice_in_one_shard_is_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("k.mp4"))
        tar.addfile(tarfile.TarInfo("k.mp4"))
    with pytest.raises(InputError, match=r"0\.tar and .*0\.tar both hold video id 'k'"):
        VideoShards(tmp_path).missing(["k"])


def test_ids_without_folders_must_be_clear(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"train/k.mp4": b"1", "test/k.mp4": b"2", "v.1.mp4": b"3"})
    write_tar(tmp_path / "1.tar", {"v.2.mp4": b"4"})
    videos = VideoShards(tmp_path)
    assert videos.fetch("test/k") == b"2"
    with pytest.raises(InputError, match="'k' names both test/k and train/k"):
        videos.fetch("k")
    assert videos.missing(["v", "v.1", "v.2"]) == ["v"]


@pytest.mark.parametrize("left", [512, 700, 1536, 1600, 3072, 4000])
def test_a_shard_that_was_cut_short_keeps_its_whole_videos(
    tmp_path: Path, left: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each member has a header of 512 bytes and 1000 bytes, which take two blocks."""
    write_tar(tmp_path / "0.tar", {f"{i}.mp4": bytes([i]) * 1000 for i in range(3)})
    write_tar(tmp_path / "1.tar", {"good.mp4": b"good"})
    os.truncate(tmp_path / "0.tar", left)
    videos = VideoShards(tmp_path)
    whole = [str(i) for i in range(3) if i * 1536 + 512 + 1000 <= left]
    assert videos.video_ids() == [*whole, "good"]
    assert videos.missing(["0", "1", "2"]) == [str(i) for i in range(3) if str(i) not in whole]
    assert [fetched(videos, name) for name in whole] == [bytes([int(i)]) * 1000 for i in whole]
    assert f"{tmp_path / '0.tar'}: it " in caplog.text
    caplog.clear()
    assert VideoShards(tmp_path).missing(["good"]) == []
    assert f"{tmp_path / '0.tar'}: it " in caplog.text, "told again from the kept index"


def test_damage_within_a_shard_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tar(tmp_path / "0.tar", {f"{i}.mp4": bytes([i]) * 1000 for i in range(3)})
    with path.open("rb+") as file:
        file.seek(1536)
        file.write(b"rubbish" * 70)
    assert VideoShards(tmp_path).video_ids() == ["0"]
    assert "damaged at byte 1,536" in caplog.text


def test_files_that_are_no_plain_tar_are_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.mp4": b"A"})
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match=r"0\.tar is no tar file.*not compressed"):
        VideoShards(tmp_path).fetch("a")


def test_the_index_is_kept_and_made_anew_when_shards_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_members = shard_index.read_members

    def counted(path: Path) -> object:
        read.append(path.name)
        return read_members(path)

    monkeypatch.setattr(shard_index, "read_members", counted)
    store(tmp_path, "shards")
    assert VideoShards(tmp_path).video_ids() == sorted(IDS)
    assert VideoShards(tmp_path).fetch("x.z") == content_of("x.z")
    assert read == ["000000.tar"], "the second storage takes what the first has kept"
    write_tar(tmp_path / "more.tar", {"more.mp4": b"more"})
    assert VideoShards(tmp_path).fetch("more") == b"more"
    assert read == ["000000.tar", "000000.tar", "more.tar"]
    (tmp_path / ".videos.index").write_bytes((tmp_path / ".videos.index").read_bytes()[:-20])
    assert VideoShards(tmp_path).fetch("more") == b"more"
    assert len(read) == 5
    (tmp_path / ".videos.index").unlink()
    (tmp_path / ".videos.index").mkdir()  # as good as a place that cannot be written to
    assert VideoShards(tmp_path).fetch("more") == b"more"
    assert [path.name for path in tmp_path.glob(".videos.index.*")] == []


def test_a_damaged_index_is_made_anew(tmp_path: Path) -> None:
    videos = store(tmp_path, "shards")
    assert videos.video_ids() == sorted(IDS)
    file = tmp_path / ".videos.index"
    whole = file.read_bytes()
    for position in range(0, len(whole), 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        again = VideoShards(tmp_path)
        assert again.video_ids() == sorted(IDS)
        assert again.fetch("x.z") == content_of("x.z")
        assert file.read_bytes() == whole


def test_another_videos_bytes_are_never_given(tmp_path: Path) -> None:
    """Shards of the same size and time, of which one has taken the place of the other."""
    folders = [tmp_path / name for name in ("here", "copied", "other")]
    for folder, ids in zip(folders, ["abc", "abc", "bac"], strict=True):
        folder.mkdir()
        write_tar(folder / "0.tar", {f"{name}.mp4": name.encode() * 600 for name in ids})
        os.utime(folder / "0.tar", ns=(10**18, 10**18))
    here, copied, other = (folder / "0.tar" for folder in folders)
    videos = VideoShards(here.parent)
    assert videos.fetch("a") == b"a" * 600
    index = here.with_name(".videos.index")
    shutil.copy(index, copied.parent)
    made = shard_index.read_members
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_index, "read_members", None)  # so that it would fail
        assert VideoShards(copied.parent).fetch("a") == b"a" * 600
    assert shard_index.read_members is made
    shutil.copy2(other, here)
    with pytest.raises(InputError, match=r"0\.tar has changed.*videos\.index"):
        videos.fetch("a")
    assert videos.fetch("c") == b"c" * 600
    assert VideoShards(here.parent).fetch("a") == b"a" * 600, "it is made anew"


def test_a_shard_that_changes_while_it_is_used_is_named(tmp_path: Path) -> None:
    videos = store(tmp_path, "shards")
    assert videos.missing(IDS) == []
    os.truncate(tmp_path / "000000.tar", 600)
    with pytest.raises(VideoReadError, match="has become shorter"):
        videos.fetch("x.z")
    (tmp_path / "000000.tar").unlink()
    with pytest.raises(VideoReadError, match="No such file"):
        videos.fetch("x.z")


def changed_index(root: Path, **changes: object) -> None:
    """Write an index that is whole, of the shards as they are, with other arrays."""
    stamp = stamp_of(shards_in(root))
    kept = read_index(root, stamp, shard_index._DTYPES)
    assert kept is not None
    notes, arrays = kept
    for name, values in changes.items():
        arrays[name] = np.array(values).astype(shard_index._DTYPES[name])
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
def test_an_index_that_lies_is_made_anew(tmp_path: Path, changes: dict[str, object]) -> None:
    write_tar(tmp_path / "0.tar", {f"{name}.mp4": name.encode() * 1000 for name in "ab"})
    assert VideoShards(tmp_path).video_ids() == ["a", "b"]
    changed_index(tmp_path, **changes)
    videos = VideoShards(tmp_path)
    assert videos.video_ids() == ["a", "b"]
    assert [videos.fetch(name) for name in "ab"] == [b"a" * 1000, b"b" * 1000]


def test_an_index_that_lies_about_one_of_many_is_named(tmp_path: Path) -> None:
    """Not every member is looked at in advance, but each when it is read."""
    names = [f"{number:04}" for number in range(200)]
    write_tar(tmp_path / "0.tar", {f"{name}.mp4": name.encode() for name in names})
    assert VideoShards(tmp_path).video_ids() == names
    places = [[1024 * number, 1024 * number + 512, 4] for number in range(200)]
    places[7], places[8] = places[8], places[7]
    changed_index(tmp_path, places=np.ravel(places))
    videos = VideoShards(tmp_path)
    assert videos.fetch("0009") == b"0009"
    with pytest.raises(InputError, match=r"0\.tar has changed.*without the file.*videos\.index"):
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
