"""Indexes follow their collection, whatever happens to files and processes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets.decoding.windows import Window, WindowReader
from alpro.errors import InputError, RunError
from alpro.search import indexing
from alpro.search.index import Index
from alpro.search.index_writer import IndexWriter
from alpro.search.updating import Updated, settings_of, take_in, update_index
from tests.search.fakes import FakeModel, fake_model, settings, write_levels, write_video

pytestmark = pytest.mark.usefixtures("decoded_here")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_video(folder / "a.mp4", num_frames=20)  # windows at 0, 0.5, 1 and 1.5 s
    write_levels(folder / "deep/er/b.MKV", [3, 3, 9, 9, 9])
    write_video(folder / "c.avi", num_frames=4)
    return folder


def update(videos: Path, folder: Path | None = None, **options: Any) -> Updated:
    folder = folder or videos.parent / "index"
    model = options.pop("model", None) or fake_model()
    return update_index(folder, [videos], model, settings(), **options)


def content(folder: Path) -> dict[str, list[tuple[int, list[float]]]]:
    """Numbers and vectors of the windows of each file, by name."""
    with Index(folder) as index:
        names = {one.id: one.path.name for one in index.files()}
        windows, vectors = index.windows(), index.vectors()
        found: dict[str, list[tuple[int, list[float]]]] = {name: [] for name in names.values()}
        for file, number, row in zip(*windows, strict=True):
            found[names[int(file)]].append((int(number), vectors[row].tolist()))
        return found


def test_a_collection_is_indexed_by_windows(videos: Path) -> None:
    model = FakeModel()
    done = update(videos, model=model).indexed
    assert (done.num_files, done.num_windows, model.num_encoded) == (3, 4 + 4 + 1, 9)
    assert done.seconds == pytest.approx(2.5 + 2.5 + 0.5)
    found = content(videos.parent / "index")
    assert {name: len(windows) for name, windows in found.items()} == {
        "a.mp4": 4,
        "b.MKV": 4,
        "c.avi": 1,
    }
    assert [number for number, _ in found["a.mp4"]] == [0, 1, 2, 3]
    levels = [int(np.argmax(vector)) for _, vector in found["b.MKV"]]
    assert (levels[0], levels[-1]) == (3, 9)
    with Index(videos.parent / "index") as index:
        files = {one.path.name: one for one in index.files()}
        assert files["a.mp4"].duration == pytest.approx(2.5)
        assert all(one.is_complete and one.reason is None for one in files.values())


def test_nothing_is_done_twice(videos: Path) -> None:
    update(videos)
    again = FakeModel()
    done = update(videos, model=again)
    assert (again.num_encoded, done.num_unchanged, done.indexed.num_files) == (0, 3, 0)


def test_changes_are_followed(videos: Path) -> None:
    update(videos)
    before = content(videos.parent / "index")
    # One is moved, one changed, one deleted, one new; the row of vectors is used again.
    (videos / "a.mp4").rename(videos / "deep/moved.mp4")
    write_levels(videos / "deep/er/b.MKV", [5, 5])
    (videos / "c.avi").unlink()
    write_levels(videos / "new.mp4", [7, 7])
    model = FakeModel()
    done = update(videos, model=model)
    assert (done.num_moved, done.num_deleted, done.indexed.num_files) == (1, 1, 2)
    assert model.num_encoded == 2
    found = content(videos.parent / "index")
    assert found.keys() == {"moved.mp4", "b.MKV", "new.mp4"}
    assert found["moved.mp4"] == before["a.mp4"]
    assert int(np.argmax(found["b.MKV"][0][1])) == 5
    assert int(np.argmax(found["new.mp4"][0][1])) == 7
    with Index(videos.parent / "index") as index:
        assert len(index.vectors()) == 9  # 4 kept, 2 of 5 free ones used


def test_files_elsewhere_are_left_alone(videos: Path, tmp_path: Path) -> None:
    update(videos)
    other = tmp_path / "other"
    write_levels(other / "x.mp4", [1, 1])
    assert update(other).num_deleted == 0
    assert len(content(tmp_path / "index")) == 4
    # A file that moves from one folder to the other is known again.
    (videos / "a.mp4").rename(other / "a.mp4")
    assert update(other).num_moved == 1


def test_an_empty_folder_deletes_nothing(videos: Path) -> None:
    update(videos)
    shutil.rmtree(videos)
    with pytest.raises(InputError, match="not found"):
        update(videos)
    videos.mkdir()  # as of a drive that is not mounted
    with pytest.raises(InputError, match="no video"):
        update(videos)
    assert len(content(videos.parent / "index")) == 3


def test_unreadable_files_are_listed_and_tried_again_on_demand(videos: Path) -> None:
    (videos / "bad.mp4").write_bytes(b"nothing")
    done = update(videos).indexed
    assert [path.name for path in done.unreadable] == ["bad.mp4"]
    with Index(videos.parent / "index") as index:
        (bad,) = [one for one in index.files() if one.reason]
        assert bad.path.name == "bad.mp4"
        assert index.num_windows(bad.id) == 0
    assert update(videos).indexed.num_files == 0
    again = update(videos, retry=True).indexed
    assert [path.name for path in again.unreadable] == ["bad.mp4"]
    write_levels(videos / "bad.mp4", [2, 2])
    assert update(videos).indexed.unreadable == {}


@pytest.mark.parametrize("happens", ["changes", "disappears"])
def test_a_file_that_changes_meanwhile_is_left_for_the_next_time(
    videos: Path, monkeypatch: pytest.MonkeyPatch, happens: str
) -> None:
    read, path = WindowReader.read, videos / "a.mp4"

    def reading(self: WindowReader, video: Path, **options: Any) -> Iterator[Window]:
        yield from read(self, video, **options)
        if video == path:
            write_levels(path, [4, 4]) if happens == "changes" else path.unlink()

    monkeypatch.setattr(WindowReader, "read", reading)
    done = update(videos).indexed
    assert list(done.unreadable) == [path]
    assert content(videos.parent / "index")["a.mp4"] == []
    monkeypatch.undo()
    again = update(videos)
    assert (again.indexed.num_files, again.num_deleted) == (
        (1, 0) if happens == "changes" else (0, 1)
    )


def test_another_model_or_other_windows_are_refused(videos: Path) -> None:
    update(videos)
    folder = videos.parent / "index"
    with pytest.raises(InputError, match="made with another model \\(m\\)"):
        update_index(folder, [videos], fake_model("x"), settings(fingerprint="x", model="other"))
    with pytest.raises(InputError, match="windows of 1 s every 0.5 s, not of 2 s every 0.5 s"):
        update_index(folder, [videos], fake_model(), settings(window=2.0))
    taken = settings_of(folder, fake_model(), name="m", window=None, stride=None)
    assert taken == settings()
    with pytest.raises(InputError, match="the stride must be above 0, and at most the window"):
        settings_of(folder, fake_model(), name="m", window=1.0, stride=2.0)


def test_two_indexers_do_not_mix(videos: Path) -> None:
    with (
        IndexWriter(videos.parent / "index", settings()),
        pytest.raises(InputError, match="another process writes to this index"),
    ):
        update(videos)
    assert update(videos).indexed.num_files == 3


def test_shares_make_the_index_of_one(videos: Path, tmp_path: Path) -> None:
    update(videos, tmp_path / "one")
    models = [FakeModel(), FakeModel()]
    for number, model in enumerate(models):
        update(videos, tmp_path / "two", part=(number, 2), model=model)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    shares = [model.num_encoded for model in models]
    assert sum(shares) == 9
    assert min(shares) > 0
    assert not list((tmp_path / "two/parts").iterdir())


def test_indexes_are_merged(videos: Path, tmp_path: Path) -> None:
    update(videos, tmp_path / "one")
    other = tmp_path / "videos2"
    write_levels(other / "d.mp4", [8, 8])
    update(other, tmp_path / "two")
    with IndexWriter(tmp_path / "one", settings()) as writer:
        assert take_in(writer, tmp_path / "two") == 1
        assert take_in(writer, tmp_path / "two") == 0
    assert content(tmp_path / "one").keys() == {"a.mp4", "b.MKV", "c.avi", "d.mp4"}


def run_and_kill(videos: Path, folder: Path, *, after: int) -> bool:
    """Index in a process that is killed before a command of the database; True if it ended."""
    child = os.fork()
    if not child:
        count, execute = 0, Index._execute  # noqa: SLF001

        def counted(self: Index, command: str, *values: Any) -> list[Any]:
            nonlocal count
            count += 1
            if count > after:
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(self, command, *values)

        Index._execute = counted  # type: ignore[method-assign]  # noqa: SLF001
        code = 1
        try:
            update(videos, folder)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status == 0


def test_kills_lose_nothing(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_WINDOWS_PER_COMMIT", 2)  # so that files are begun and not ended
    monkeypatch.setattr(indexing, "BATCH_SIZE", 2)
    update(videos, tmp_path / "whole")
    # Each process gets as far as to one command more than the one before.
    num_kills = 0
    while not run_and_kill(videos, tmp_path / "killed", after=8 + 3 * num_kills):
        num_kills += 1
        if (tmp_path / "killed/index.sqlite3").exists():
            with Index(tmp_path / "killed") as index:
                index.vectors()  # what the database mentions is there
    assert num_kills >= 5
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_long_file_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "_WINDOWS_PER_COMMIT", 4)
    monkeypatch.setattr(indexing, "BATCH_SIZE", 4)
    write_levels(tmp_path / "videos/long.mp4", [1, 2, 3, 4, 5, 6, 7, 8] * 4)
    update(tmp_path / "videos", tmp_path / "whole")

    class Interrupted(FakeModel):
        def encode_frames(self, frames: np.ndarray) -> np.ndarray:
            if self.num_encoded >= 12:
                raise KeyboardInterrupt
            return super().encode_frames(frames)

    with pytest.raises(KeyboardInterrupt):
        update(tmp_path / "videos", model=Interrupted())
    model = FakeModel()
    done = update(tmp_path / "videos", model=model).indexed
    assert model.num_encoded == done.num_windows == 31 - 12
    assert content(tmp_path / "index") == content(tmp_path / "whole")


@pytest.mark.parametrize("where", ["vectors", "database"])
def test_a_full_disk_ends_the_work_with_a_remedy_and_loses_nothing(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    update(videos, tmp_path / "whole")
    with monkeypatch.context() as patch:
        if where == "vectors":

            def refuse(*_: Any) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(os, "pwrite", refuse)
        else:
            begin = IndexWriter.begin

            def begin_small(self: IndexWriter, path: Path, state: Any, _digest: bytes) -> int:
                self._database.execute("PRAGMA max_page_count = 1")  # as many as there are
                return begin(self, path, state, bytes(1 << 20))

            patch.setattr(IndexWriter, "begin", begin_small)
        with pytest.raises(RunError, match="No space left|disk is full|is full"):
            update(videos)
    update(videos)
    assert content(videos.parent / "index") == content(tmp_path / "whole")
