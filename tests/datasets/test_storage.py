from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from src.datasets.storage import VideoFolder, lost_zeros
from src.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        *("a.avi", "a.mp4", "b.webm", "C.MOV", "notes.txt", "x.y.mp4", "part/d.mp4"),
        *("e.wmv", "part/f.Mp4", "g.MP4", "g.mkv", "g.Mkv", "h.M2TS", "i.gif"),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


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
def test_find_prefers_the_datasets_extension(
    folder: Path, video_id: str, extension: str, expected: str
) -> None:
    videos = VideoFolder(folder, extension=extension)
    assert videos.find(video_id) == folder / expected
    assert videos.missing([video_id]) == []


def test_a_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    list_folder = Path.iterdir

    def counted(path: Path) -> Iterator[Path]:
        listed.append(path)
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", counted)
    videos = VideoFolder(folder)
    assert videos.find("a") == folder / "a.mp4"
    assert listed == [], "the name is as it should be"
    assert videos.missing(["a", "e", "z", "part/f"]) == ["z"]
    assert [videos.find(name) for name in ("e", "z")] == [folder / "e.wmv", None]
    assert listed == [folder, folder / "part"]


def test_missing_lists_each_absent_id_once_in_order(folder: Path) -> None:
    videos = VideoFolder(folder)
    asked = ["z", "a", "notes", "z", "part/e", "nowhere/f"]
    assert videos.missing(asked) == ["z", "notes", "part/e", "nowhere/f"]
    assert videos.find("z") is None
    assert videos.find("part") is None


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere not found.*img"):
        VideoFolder(tmp_path / "nowhere")


def test_a_file_in_place_of_the_folder_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"notes\.txt is a file, not a folder"):
        VideoFolder(folder / "notes.txt")


@pytest.mark.parametrize(
    ("missing", "names", "named"),
    [
        (["7", "1"], ["0001.mp4"], "0001.mp4"),
        (["0"], ["000.mp4"], "000.mp4"),
        (["1.mp4"], ["0001.MP4"], "0001.MP4"),
        (["a/1"], ["a/01.avi", "01.mp4"], "a/01.avi"),
        (["a/1"], ["01.mp4"], None),
        (["1"], ["10.mp4", "video01.mp4"], None),
        (["0001"], ["1.mp4", "01.mp4"], None),
        (["dog"], ["0001.mp4"], None),
    ],
)
def test_zeros_that_ids_have_lost_are_told(
    missing: list[str], names: list[str], named: str | None
) -> None:
    hint = lost_zeros(missing, names)
    assert hint == (named and f"the folder has {named}; have the ids lost leading zeros?")


def test_files_are_listed_where_ids_were_looked_up(folder: Path) -> None:
    videos = VideoFolder(folder)
    assert videos.missing(["part/1"]) == ["part/1"]
    assert sorted(videos.listed_names()) == ["part/d.mp4", "part/f.Mp4"]
