"""Finding the videos of a collection."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from alpro.errors import InputError
from alpro.search.collection import digest_of, find_videos, share_of
from alpro.search.index import FileState


def touch(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_videos_are_found_in_subfolders_and_nothing_else(tmp_path: Path) -> None:
    wanted = [touch(tmp_path / name) for name in ("a.mp4", "b/c/d.MOV", "b/e.webm")]
    for name in ("notes.txt", "p.jpg", ".hidden.mp4", ".cache/x.mp4", "b/raw/r.mp4", "mp4"):
        touch(tmp_path / name)
    found = find_videos([tmp_path], exclude=["*/raw/*"])
    assert sorted(found.videos) == sorted(wanted)
    assert dict(found.others) == {".txt": 1, ".jpg": 1, "no extension": 1}
    assert list(find_videos([tmp_path / "a.mp4"]).videos) == [tmp_path / "a.mp4"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "videos/a.mp4")
    (tmp_path / "videos/loop").symlink_to(tmp_path / "videos")
    touch(tmp_path / "elsewhere/b.mp4")
    (tmp_path / "videos/other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos/broken.mp4").symlink_to(tmp_path / "gone.mp4")
    found = find_videos([tmp_path / "videos"])
    assert sorted(path.name for path in found.videos) == ["a.mp4", "b.mp4"]
    assert list(found.unreadable.values()) == ["No such file or directory"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no video \\(.mp4, .avi, .mkv, .webm, ...\\) is there.$"),
        (["a.jpg", "b.jpg", "c.png"], "is there. Files there: 2 .jpg, 1 .png.$"),
    ],
)
def test_a_folder_without_videos_says_what_is_there(
    tmp_path: Path, names: list[str], message: str
) -> None:
    for name in names:
        touch(tmp_path / name)
    with pytest.raises(InputError, match=message):
        find_videos([tmp_path])


def test_a_closed_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "closed/b.mp4")
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path == tmp_path / "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = find_videos([tmp_path])
    assert list(found.videos) == [tmp_path / "a.mp4"]
    assert found.unreadable == {tmp_path / "closed": "Permission denied"}


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    path = touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/lat\xff1.mp4")))
    assert list(find_videos([tmp_path]).videos) == [path]


def test_shares_are_disjoint_and_balanced() -> None:
    videos = {Path(f"{i}.mp4"): FileState(size, 0) for i, size in enumerate([90, 50, 40, 10, 1])}
    shares = [share_of(videos, part=i, num_parts=2) for i in range(2)]
    assert shares[0] | shares[1] == videos
    assert [sum(state.size for state in share.values()) for share in shares] == [100, 91]
    # The order in which files were found does not matter.
    assert share_of(dict(reversed(videos.items())), part=0, num_parts=2) == shares[0]


def test_digests_tell_files_apart_by_their_ends(tmp_path: Path) -> None:
    size = 1 << 18
    content = bytearray(os.urandom(size))
    whole = tmp_path / "a"
    whole.write_bytes(content)
    digest = digest_of(whole)
    for place in (0, size - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (tmp_path / "b").write_bytes(changed)
        assert digest_of(tmp_path / "b") != digest
    (tmp_path / "b").write_bytes(content + b"\0")
    assert digest_of(tmp_path / "b") != digest
