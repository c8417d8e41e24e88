from __future__ import annotations

import logging
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from alpro.datasets.storage import VideoFolder, open_videos
from alpro.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    for name in (
        *("a.avi", "a.mp4", "b.webm", "C.MOV", "notes.txt", "x.y.mp4", "part/d.mp4"),
        *("e.wmv", "part/f.Mp4", "g.MP4", "g.mkv", "g.Mkv", "h.M2TS", "i.gif"),
    ):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("video_id", "extension", "expected"),
    [
        ("a", ".mp4", "a.mp4"),
        ("a", ".avi", "a.avi"),
        ("b", ".mp4", "b.webm"),
        ("C", ".mp4", "C.MOV"),
        ("x.y", ".mp4", "x.y.mp4"),
        ("part/d", ".mp4", "part/d.mp4"),
        ("b.webm", ".mp4", "b.webm"),
        ("e", ".mp4", "e.wmv"),
        ("part/f", ".avi", "part/f.Mp4"),
        ("g", ".avi", "g.MP4"),
        ("g", ".mkv", "g.mkv"),
        ("g.Mkv", ".mp4", "g.mkv"),
        ("C.MOV", ".mp4", "C.MOV"),
        ("h", ".mp4", "h.M2TS"),
        ("i", ".mp4", "i.gif"),
    ],
)
def test_fetch_prefers_the_datasets_extension(
    folder: Path, video_id: str, extension: str, expected: str
) -> None:
    videos = VideoFolder(folder, extension=extension)
    assert videos.fetch(video_id) == folder / expected
    assert videos.missing([video_id]) == []


def test_a_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    list_folder = os.scandir

    def pluralize(path: str) -> Any:
        listed.append(os.path.relpath(path, folder))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", pluralize)
    videos = VideoFolder(folder)
    assert videos.fetch("a") == folder / "a.mp4"
    assert listed == [], "the name is as it should be"
    assert videos.missing(["a", "e", "part/f"]) == []
    assert listed == [".", "part"]
    assert videos.missing(["z", "f"]) == ["z"]
    assert [videos.fetch(name) for name in ("e", "z")] == [folder / "e.wmv", None]
    assert listed == [".", "part"], "the subfolder was listed before"


def test_missing_lists_each_absent_id_once_in_order(folder: Path) -> None:
    videos = VideoFolder(folder)
    asked = ["z", "a", "notes", "z", "part/e", "nowhere/f"]
    assert videos.missing(asked) == ["z", "notes", "part/e", "nowhere/f"]
    assert videos.fetch("z") is None
    assert videos.fetch("part") is None


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere not found.*img"):
        VideoFolder(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"notes\.txt is a file, not a folder"):
        VideoFolder(folder / "notes.txt")


def test_files_are_listed_where_ids_were_looked_up(folder: Path) -> None:
    videos = VideoFolder(folder)
    assert videos.missing(["part/d"]) == []
    assert sorted(videos.listed_names()) == ["part/d.mp4", "part/f.Mp4"]
    assert videos.missing(["part/1"]) == ["part/1"]
    assert {"part/f.Mp4", "notes.txt", "a.avi"} < set(videos.listed_names())


@pytest.mark.parametrize(
    ("video_id", "expected"),
    [
        ("d", "part/d.mp4"),
        ("f.MP4", "part/f.Mp4"),
        ("deep", "train/class a/deep.mkv"),
        ("class a/deep", "train/class a/deep.mkv"),
        ("class/deep", None),
        ("same", "same.mp4"),
        ("two", "train/two.mp4"),
        ("unknown", "train/unknown.rmvb"),
        ("unknown.rmvb", "train/unknown.rmvb"),
        ("bare", "train/bare"),
        ("vague", None),
        ("subtitled", None),
        ("subtitled.srt", None),
        ("hidden", None),
        ("inside", None),
    ],
)
def test_files_are_found_in_subfolders(folder: Path, video_id: str, expected: str | None) -> None:
    for name in (
        *("train/class a/deep.mkv", "same.mp4", "part/same.mp4", "part/two.avi", "train/two.mp4"),
        *("train/unknown.rmvb", "train/bare", "train/vague.one", "part/vague.two"),
        *("train/subtitled.srt", "train/.hidden.mp4", ".hidden/inside.mp4"),
    ):
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    videos = VideoFolder(folder)
    found = folder / expected if expected else None
    assert videos.fetch(video_id) == found
    assert videos.missing([video_id]) == ([] if expected else [video_id])
    if expected and expected != "train/bare":
        known = {videos.fetch(each): each for each in videos.video_ids()}
        assert known[found] in (video_id, Path(expected).stem)


def test_two_files_of_one_name_in_subfolders_are_named(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part).mkdir()
        (folder / part / "x.mp4").touch()
    videos = VideoFolder(folder)
    message = r"'x' names both test/x\.mp4 and train/x\.mp4"
    with pytest.raises(InputError, match=message):
        videos.fetch("x")
    with pytest.raises(InputError, match=message):
        videos.missing(["a", "x"])
    assert videos.fetch("train/x") == folder / "train/x.mp4"
    assert {"train/x", "test/x"} < set(videos.video_ids())


def test_every_video_has_an_id_of_its_own(folder: Path) -> None:
    (folder / "part/x.y.avi").touch()
    (folder / "x.mp4.avi").touch()
    (folder / "x.mp4").touch()
    videos = VideoFolder(folder)
    names = videos.video_files()
    assert "notes.txt" not in names
    found = {videos.fetch(video_id) for video_id in videos.video_ids()}
    # g.MP4, g.Mkv and g.mkv differ in capitals only: the ids that capitals tell apart are few
    assert {folder / name for name in names} - found <= {folder / "g.Mkv"}
    assert {"a", "a.avi", "x.y", "x"} < set(videos.video_ids())


def test_links_to_nowhere_are_missing(folder: Path) -> None:
    (folder / "u.mp4").symlink_to(folder / "nowhere")
    (folder / "w.mp4").symlink_to("w.mp4")
    (folder / "w.avi").symlink_to(folder / "a.avi")
    videos = VideoFolder(folder)
    assert videos.missing(["u", "u.mp4", "w"]) == ["u", "u.mp4"]
    assert [videos.fetch(name) for name in ("u", "w")] == [None, folder / "w.avi"]
    assert "u.mp4" in videos.video_files()


def test_a_search_of_the_subfolders_is_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    videos = VideoFolder(folder)
    assert videos.missing(["a", "part/d"]) == []
    assert caplog.messages == []
    for _ in range(2):
        assert videos.missing(["a", "d", "z", "z"]) == ["z"]
        assert caplog.messages == [f"searching the subfolders of {folder} for 2 ids"]


def test_folders_that_hold_themselves_are_walked_once(folder: Path) -> None:
    (folder / "part/around").symlink_to(folder)
    (folder / "elsewhere").symlink_to(folder / "part")
    videos = VideoFolder(folder)
    assert videos.fetch("d") is not None
    assert videos.video_ids().count("d") == 1


OUTSIDE = (
    *("../a", "part/../../folder/a", "..", "../", "part/../a", "..\\a", "\\a"),
    *("", "/", ".", "part/", "part/.", "a\0b", "\ud800"),
)
"""Ids that name no file within their folder; with the name of a file that is there, mostly."""


@pytest.mark.parametrize("video_id", [*OUTSIDE, "x" * 300, "x/" * 3000, "part", "a.mp4/"])
def test_ids_that_no_file_within_can_have(folder: Path, video_id: str) -> None:
    videos = VideoFolder(folder)
    assert videos.fetch(video_id) is None
    assert videos.missing([video_id]) == [video_id]


def test_complete_paths_are_no_ids(folder: Path, tmp_path: Path) -> None:
    videos = VideoFolder(folder)
    for path in (folder / "a", folder / "a.mp4", tmp_path.parent / "a"):
        assert videos.fetch(str(path)) is None
        assert videos.missing([str(path)]) == [str(path)]


def test_links_within_the_folder_are_followed(folder: Path, tmp_path: Path) -> None:
    """Whoever has put them there wants so: data sets are often linked together."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "k.mp4").touch()
    (folder / "set").symlink_to(elsewhere)
    (folder / "l.mp4").symlink_to(elsewhere / "k.mp4")
    videos = VideoFolder(folder)
    assert videos.missing(["set/k", "k", "l"]) == []
    assert videos.fetch("set/k") == folder / "set/k.mp4"


def test_ids_may_begin_with_the_current_folder(folder: Path) -> None:
    videos = VideoFolder(folder)
    before = videos.video_ids()
    assert videos.missing(["./a", "./part/d", "part//d"]) == []
    assert videos.fetch("./part/d") is not None
    assert videos.video_ids() == before, "none is listed twice"


def test_pipes_folders_and_devices_are_missing_videos(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "null.mp4").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(folder / "socket.mp4"))
    ids = ["pipe", "folder", "null", "socket"]
    videos = VideoFolder(folder)
    assert videos.missing(ids) == ids
    assert [videos.fetch(name) for name in ids] == [None] * 4


def test_folders_may_vanish_while_they_are_looked_through(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def vanishing(path: str) -> Any:
        entries = scandir(path)
        (folder / "part").rename(folder.parent / "away")
        monkeypatch.setattr(os, "scandir", scandir)
        return entries

    monkeypatch.setattr(os, "scandir", vanishing)
    videos = VideoFolder(folder)
    assert videos.missing(["a", "d"]) == ["d"]
    shutil.rmtree(folder)
    assert videos.missing(["a", "d", "z"]) == ["d", "z"], "what was listed is remembered"
    assert videos.fetch("a") is None
    with pytest.raises(InputError, match="not found"):
        VideoFolder(folder)


def test_a_folder_that_must_not_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path != folder)
    with pytest.raises(InputError, match=f"folder {folder} cannot be read: Permission denied"):
        open_videos(folder)


def test_clips_may_be_in_the_folder_of_their_video(tmp_path: Path) -> None:
    for name in ("x/x.3.mp4", "x/x.4.avi", "y.1.mp4", "y/y.1.mp4", "other/z.1.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    places = {
        **{"x.3.mp4": "x/x.3.mp4", "x.3": "x/x.3.mp4", "x.4": "x/x.4.avi"},
        **{"y.1": "y.1.mp4", "z.1.mp4": "other/z.1.mp4"},
    }
    videos = VideoFolder(tmp_path)
    assert {name: videos.fetch(name) for name in places} == {
        name: tmp_path / place for name, place in places.items()
    }
    missing = ["x.5.mp4", "x/x.3.1", "../x.3", ".x", "x."]
    assert videos.missing([*places, *missing]) == missing
    assert [videos.fetch(name) for name in missing] == [None] * 5
    # Those of one folder are known without a look into others.
    videos = VideoFolder(tmp_path)
    assert videos.missing(["x.3.mp4"]) == []
    assert "other/z.1.mp4" not in videos.listed_names()
