from __future__ import annotations

import os
from pathlib import Path

import pytest

from alpro.datasets.storage import VideoFolder, hint_of_missing, near_names


@pytest.mark.parametrize(
    ("missing", "names", "named"),
    [
        (["7", "1"], ["0001.mp4"], "0001.mp4"),
        (["0"], ["000.mp4"], "000.mp4"),
        (["1.mp4"], ["0001.MP4"], "0001.MP4"),
        (["a/1"], ["a/01.avi", "01.mp4"], "a/01.avi"),
        (["1"], ["10.mp4", "video01.mp4"], "video01.mp4"),
        (["0001"], ["1.mp4"], "1.mp4"),
        (["0001"], ["2.mp4", "01.txt"], None),
        (["dog"], ["0001.mp4"], None),
    ],
)
def test_zeros_in_front_may_differ(missing: list[str], names: list[str], named: str | None) -> None:
    hint = near_names(missing, names)
    if named is None:
        assert hint is None
    else:
        assert hint is not None
        assert f"the folder has {named} for id " in hint


@pytest.mark.parametrize(
    ("video_id", "name", "question"),
    [
        ("VideoA", "videoa.mp4", "do capitals differ?"),
        ("e\u0301te\u0301", "\xe9t\xe9.mp4", "are accents written otherwise"),
        ("my-clip 1", "my_clip_1.mp4", "do separators or spaces differ?"),
        ("clip.01", "clip_01.avi", "do separators or spaces differ?"),
        (" clip", "clip.mp4", "do separators or spaces differ?"),
        ("train/a", "val/a.mp4", "do the folders differ?"),
        ("videos\\a", "a.mp4", "do the folders differ?"),
        ("-4wsuPCjDBc", "-4wsuPCjDBc.f137.mp4", "prefix or a suffix"),
        ("v_-4wsuPCjDBc", "-4wsuPCjDBc.mp4", "prefix or a suffix"),
        ("-4wsuPCjDBc", "-4wsuPCjDBc_000010_000020.mp4", "prefix or a suffix"),
        ("-4wsuPCjDBc_5_15", "-4wsuPCjDBc.mp4", "prefix or a suffix"),
        ("-4wsuPCjDBc", "A dog runs [-4wsuPCjDBc].webm", "prefix or a suffix"),
        ("7010", "video7010.mp4", "prefix or a suffix"),
        ("a%20dog", "a dog.mp4", "are they spelt differently?"),
        ("Video7", "video0007.mp4", "spelt differently, with a prefix or suffix"),
        ("A dog", "a_dog-720p.mp4", "spelt differently, with a prefix or suffix"),
    ],
)
def test_names_that_come_close_are_shown(video_id: str, name: str, question: str) -> None:
    hint = near_names([video_id], [name, "other.mp4"])
    assert hint is not None
    assert question in hint
    assert "would match" not in hint


def test_the_rule_that_suits_most_ids_is_chosen() -> None:
    missing = ["A", "b_1", "c_2", "d"]
    names = ["a.mp4", "b-1.mp4", "c-2.mp4", "z.mp4"]
    assert near_names(missing, names) == (
        "the folder has a.mp4 for id A; are they spelt differently? (3 of 4 would match so)"
    )
    assert near_names(missing[1:], names) == (
        "the folder has b-1.mp4 for id b_1; do separators or spaces differ? (2 of 3 would match so)"
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"v0/00000.jpg", "v0/00001.jpg", "v1/00000.jpg", "list.txt"}, "images, such as v0/0000"),
        ({"00000.tar.gz", "00001.tar.gz"}, "compressed files, such as 0000"),
        ({"00000.tgz"}, "compressed files, such as 00000.tgz"),
        ({"videos.zip", "readme.txt", "part2.zip"}, "archives, such as "),
        ({"videos.rar"}, "archives, such as videos.rar: unpack them"),
        ({"v0.mp3", "v1.mp3"}, "sound, such as "),
        ({"train.csv"}, "texts, such as train.csv"),
        ({"v0.npy"}, "arrays, such as v0.npy"),
        ({"v0.mp4.part"}, "unfinished downloads, such as v0.mp4.part"),
        (set(), "it is empty"),
    ],
)
def test_files_in_place_of_videos_are_named(tmp_path: Path, files: set[str], message: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    videos = VideoFolder(tmp_path)
    missing = videos.missing(["id0"])
    assert missing == ["id0"]
    assert message in (hint_of_missing(missing, videos) or "")


def test_the_reason_is_given_for_ids_that_lead_outside(tmp_path: Path) -> None:
    videos = VideoFolder(tmp_path)
    for video_id, reason in [
        ("../a", "leads out of the folder"),
        ("b/../../a", "leads out of the folder"),
        ("..\\a", "leads out of the folder"),
        ("/etc/a", "is a complete path"),
        ("a\0", "holds a zero character"),
        ("", "names no file"),
        ("a/", "names no file"),
        ("\ud800", "holds half a character"),
    ]:
        missing = videos.missing(["dog", video_id])
        assert missing == ["dog", video_id]
        hint = hint_of_missing(missing, videos)
        assert hint is not None
        assert reason in hint
        assert str(tmp_path) in hint
        hint.encode()


def test_folders_that_cannot_be_listed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "other.mp4").touch()
    scandir = os.scandir

    def guarded(path: str) -> object:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    videos = VideoFolder(tmp_path)
    hint = hint_of_missing(videos.missing(["dog"]), videos)
    assert hint == f"{tmp_path}/closed cannot be listed: Permission denied"


def test_folders_that_cannot_be_entered_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files' names can be listed; the files cannot be opened."""
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed/dog.mp4").touch()
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("closed"))
    videos = VideoFolder(tmp_path)
    assert videos.missing(["dog"]) == ["dog"]
    hint = hint_of_missing(["dog"], videos)
    assert hint == f"{tmp_path}/closed cannot be listed: Permission denied"


def test_a_broken_link_with_the_name_of_an_id_is_hinted_at(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").symlink_to(tmp_path / "gone.mp4")
    videos = VideoFolder(tmp_path)
    hint = hint_of_missing(videos.missing(["a"]), videos)
    assert hint is not None
    assert hint.endswith("a.mp4 for id a; is that a link to nowhere, a pipe or a device?")
