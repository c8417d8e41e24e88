from __future__ import annotations

import gzip
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.storage import shards
from alpro.datasets.storage.shards import VideoShards
from alpro.errors import InputError
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
    assert f"{tmp_path / '0.tar'}: it " in caplog.text, "logged again from the kept index"


def test_damage_within_a_shard_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_the_index_is_kept_and_rebuilt_when_shards_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    read_members = shards.read_members

    def pluralize(path: Path) -> object:
        read.append(path.name)
        return read_members(path)

    monkeypatch.setattr(shards, "read_members", pluralize)
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


def test_a_damaged_index_is_rebuilt(tmp_path: Path) -> None:
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


def test_another_videos_bytes_are_never_returned(tmp_path: Path) -> None:
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
    made = shards.read_members
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "read_members", None)  # so that it would fail
        assert VideoShards(copied.parent).fetch("a") == b"a" * 600
    assert shards.read_members is made
    shutil.copy2(other, here)
    with pytest.raises(InputError, match=r"0\.tar has changed.*videos\.index"):
        videos.fetch("a")
    assert videos.fetch("c") == b"c" * 600
    assert VideoShards(here.parent).fetch("a") == b"a" * 600, "it is rebuilt"


def test_a_shard_that_changes_while_it_is_used_is_named(tmp_path: Path) -> None:
    videos = store(tmp_path, "shards")
    assert videos.missing(IDS) == []
    os.truncate(tmp_path / "000000.tar", 600)
    with pytest.raises(VideoReadError, match="has become shorter"):
        videos.fetch("x.z")
    (tmp_path / "000000.tar").unlink()
    with pytest.raises(VideoReadError, match="No such file"):
        videos.fetch("x.z")
