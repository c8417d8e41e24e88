"""Folders, indexes and disks that are not as they should be."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alpro
from alpro.commands.main import main
from alpro.errors import InputError
from alpro.search.collection import find_videos
from alpro.search.index import DATABASE, VECTORS, FileState, Index
from alpro.search.index_writer import IndexWriter
from alpro.search.updating import Updated, update_index
from alpro.training.atomic_io import FullDiskError
from tests.search.fakes import NUM_LEVELS, FakeModel, fake_model, settings, vector_of, write_levels
from tests.training.disks import largest_file

Run = Callable[..., str]

pytestmark = pytest.mark.usefixtures("decoded_here")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_levels(tmp_path / "videos/a.mp4", [3, 3, 9])
    write_levels(tmp_path / "videos/deep/b.mp4", [7, 7])
    return tmp_path / "videos"


def update(*roots: Path, folder: Path | None = None, **options: Any) -> Updated:
    folder = folder or roots[0].parent / "index"
    return update_index(folder, roots, fake_model(), settings(), **options)


def names(folder: Path) -> set[str]:
    with Index(folder) as index:
        return {one.path.name for one in index.files()}


def write_index(folder: Path, *, num_files: int = 3) -> None:
    with IndexWriter(folder, settings()) as writer:
        for number in range(num_files):
            add_file(writer, number)


def add_file(writer: IndexWriter, number: int) -> None:
    file = writer.begin(Path(f"/videos/{number}.mp4"), FileState(number, 0), b"digest")
    writer.add(file, np.stack([vector_of(number % NUM_LEVELS)] * 2), duration=1.5)
    writer.finish(file)


def test_an_empty_root_beside_others_loses_nothing(videos: Path, tmp_path: Path) -> None:
    drive = tmp_path / "drive"
    path = write_levels(drive / "c.mp4", [5, 5])
    update(videos, drive)
    path.rename(tmp_path / "c.mp4")  # as when the drive is not mounted
    done = update(videos, drive)
    assert done.num_deleted == 0
    assert done.collection.unreadable == {drive: "no video is there; what is indexed is kept"}
    (tmp_path / "c.mp4").rename(path)
    again = update(videos, drive)
    assert (again.num_unchanged, again.indexed.num_files, again.collection.unreadable) == (3, 0, {})


def test_folders_that_cannot_be_read_lose_nothing(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(videos)
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if path == videos / "deep":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    done = update(videos)
    assert (done.num_deleted, done.collection.unreadable) == (
        0,
        {videos / "deep": "Permission denied"},
    )
    monkeypatch.undo()
    shutil.rmtree(videos / "deep")
    assert update(videos).num_deleted == 1


def test_a_link_to_a_folder_that_is_gone_loses_nothing(videos: Path, tmp_path: Path) -> None:
    (videos / "deep").rename(tmp_path / "disk")
    (videos / "deep").symlink_to(tmp_path / "disk")
    update(videos)
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    done = update(videos)
    assert done.num_deleted == 0
    assert done.collection.unreadable == {videos / "deep": "No such file or directory"}


def test_links_to_themselves_and_pipes_are_listed(videos: Path) -> None:
    (videos / "loop.mp4").symlink_to(videos / "loop.mp4")
    os.mkfifo(videos / "pipe.mp4")
    collection = find_videos([videos])
    assert {path.name for path in collection.videos} == {"a.mp4", "b.mp4"}
    assert collection.unreadable == {
        videos / "loop.mp4": "Too many levels of symbolic links",
        videos / "pipe.mp4": "it is no regular file",
    }


def test_files_are_named_by_their_folder_whatever_links_there_are(videos: Path) -> None:
    update(videos)
    (videos / "deeper").symlink_to(videos / "deep")
    (videos / "a-link").symlink_to(videos / "deep")
    done = update(videos)
    assert (done.num_unchanged, done.indexed.num_files, done.num_deleted) == (2, 0, 0)


def test_names_that_are_not_utf8_are_indexed_searched_and_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(alpro, "load", lambda *_, **__: fake_model())
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/vid\xff"))
    root.mkdir()
    write_levels(tmp_path / "a.mp4", [4, 4]).rename(root / os.fsdecode(b"\xfe.mp4"))
    (root / os.fsdecode(b"bad\xfe.mp4")).write_bytes(b"no video")
    index, model = str(root / "index"), os.fsdecode(b"model\xff")
    windows = ("--window", "1", "--stride", "0.5")
    assert main(["index", str(root), "--model", model, "--index", index, *windows]) == 0
    assert main(["index", str(root), "--index", index]) == 0
    assert main(["index", "--status", "--index", index]) == 0
    assert main(["search", "level 4", "--index", index]) == 0
    assert main(["search", "level 4", "--index", index, "--json"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"vid\\udcff/\\udcfe.mp4\n  0\.99\d  0:00 - 0:01\n", printed)
    assert f"model: {os.getcwd()}/model\\udcff" in printed
    assert "bad\\udcfe.mp4: " in printed


@pytest.mark.parametrize("place", [1, 100, 4095, 4096, 8192, 12288])
def test_a_shortened_database_is_refused(tmp_path: Path, place: int) -> None:
    write_index(tmp_path)
    os.truncate(tmp_path / DATABASE, place)
    with pytest.raises(InputError, match=f"{DATABASE}: cannot be read .*and index again"):
        IndexWriter(tmp_path, settings())


@pytest.mark.parametrize("how", ["shortened", "lost"])
def test_nobody_writes_behind_vectors_that_are_missing(tmp_path: Path, how: str) -> None:
    write_index(tmp_path)
    path = tmp_path / VECTORS
    path.unlink() if how == "lost" else os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(InputError, match="vectors are missing. Delete .* and index again"):
        IndexWriter(tmp_path, settings())
    with pytest.raises(InputError, match="vectors are missing"):  # and nobody is kept out
        IndexWriter(tmp_path, settings())


def test_another_version_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("UPDATE settings SET value = 99 WHERE name = 'format'")
    database.close()
    with pytest.raises(InputError, match="an index of another version"):
        Index(tmp_path)


def test_vectors_that_are_appended_meanwhile_are_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_index(tmp_path)
    execute = Index._execute  # noqa: SLF001

    def executing(self: Index, command: str, *values: Any) -> list[Any]:
        if "MAX(row + count)" in command:
            monkeypatch.undo()
            with IndexWriter(tmp_path, settings()) as writer:
                add_file(writer, 3)
        return execute(self, command, *values)

    with Index(tmp_path) as index:
        monkeypatch.setattr(Index, "_execute", executing)
        assert len(index.vectors()) == 8


def fill(writer: IndexWriter) -> None:
    for number in range(1, 200):
        add_file(writer, number)


def test_a_full_disk_is_told_and_the_index_stays_whole(tmp_path: Path) -> None:
    with IndexWriter(tmp_path, settings()) as writer:
        add_file(writer, 0)
        # SQLite's own limit of the size stands for the disk.
        ((size,),) = writer._execute("PRAGMA page_count")  # noqa: SLF001
        writer._execute(f"PRAGMA max_page_count = {size}")  # noqa: SLF001
        with pytest.raises(FullDiskError, match="disk is full") as told:
            fill(writer)
        assert "Delete" not in str(told.value)
        written = [one for one in writer.files() if one.is_complete]
        assert all(writer.num_windows(one.id) == 2 for one in written)
        # With space again, the same writer goes on.
        writer._execute("PRAGMA max_page_count = 1000000")  # noqa: SLF001
        add_file(writer, 500)
    with Index(tmp_path) as index:
        assert len(index.windows().row) == len(set(index.windows().row)) >= 2 * (len(written) + 1)


@pytest.mark.parametrize("num_bytes", [0, 4096])
def test_an_index_that_cannot_be_made_for_want_of_space(tmp_path: Path, num_bytes: int) -> None:
    with largest_file(num_bytes), pytest.raises(FullDiskError, match="cannot be written"):
        IndexWriter(tmp_path, settings())
    assert [one.name for one in tmp_path.iterdir()] == ["index.lock"]
    write_index(tmp_path)


def test_vectors_without_space_are_told(tmp_path: Path) -> None:
    write_index(tmp_path)
    with IndexWriter(tmp_path, settings()) as writer:
        file = writer.begin(Path("/long.mp4"), FileState(1, 1), b"digest")
        num_bytes = max(path.stat().st_size for path in tmp_path.iterdir())
        vectors = np.zeros((num_bytes, settings().embed_dim), np.float16)
        with largest_file(num_bytes), pytest.raises(FullDiskError, match=VECTORS):
            writer.add(file, vectors, duration=1.0)
        assert writer.num_windows(file) == 0
        writer.add(file, vectors[:3], duration=1.0)
        assert writer.num_windows(file) == 3


def test_a_model_without_embeddings_makes_no_index(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = FakeModel()
    model.can_embed = False
    monkeypatch.setattr(alpro, "load", lambda *_, **__: model)
    folder = videos.parent / "index"
    assert main(["index", str(videos), "--model", "qa", "--index", str(folder)]) == 2
    assert "qa: embeds no videos" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--window", "2", "--stride", "3"), "windows of 2 s every 3 s: the stride must be above"),
        (("--window", "0"), "0 is not between 0 and a day of seconds"),
        (("--stride", "nan"), "nan is not between 0 and a day"),
        (("--part", "3/2"), "'3/2' is not a share such as 1/4"),
        (("--part", "0/2"), "is not a share"),
    ],
)
def test_flags_out_of_range_are_refused(
    videos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(alpro, "load", lambda *_, **__: fake_model())
    monkeypatch.chdir(videos.parent)
    try:
        code: Any = main(["index", "videos", "--model", "m", *words])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (videos.parent / "alpro-index").exists()
