"""Indexing that is killed, interrupted, or fails goes on without loss."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets.decoding.windows import Window, WindowReader
from alpro.isolation.process import IsolatedProcess
from alpro.search import indexing
from alpro.search.index import Index
from alpro.search.index_writer import IndexWriter
from alpro.search.indexing import Indexed
from alpro.search.updating import Updated, update_index
from tests.search.fakes import FakeModel, fake_model, settings, write_levels

NUM_WINDOWS = 31  # of the long video
PER_COMMIT = 4


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A long video and two short ones; few windows are written at once."""
    monkeypatch.setattr(indexing, "_WINDOWS_PER_COMMIT", PER_COMMIT)
    monkeypatch.setattr(indexing, "BATCH_SIZE", 2)
    folder = tmp_path / "videos"
    write_levels(folder / "long.mp4", [1, 2, 3, 4, 5, 6, 7, 8] * 4)
    write_levels(folder / "short.mp4", [9, 9])
    write_levels(folder / "other.mp4", [7, 7, 7])
    return folder


def update(videos: Path, folder: str = "index", **options: Any) -> Updated:
    model = options.pop("model", None) or fake_model()
    return update_index(videos.parent / folder, [videos], model, settings(), **options)


def content(folder: Path) -> dict[str, list[tuple[int, list[float]]]]:
    """Numbers and vectors of the windows of each file, by name."""
    with Index(folder) as index:
        windows, vectors = index.windows(), index.vectors()
        return {
            one.path.name: [
                (int(number), vectors[row].tolist())
                for file, number, row in zip(*windows, strict=True)
                if file == one.id
            ]
            for one in index.files()
        }


def killed(work: Callable[[], object]) -> bool:
    """Whether a forked process that does some work is killed; else it ends well."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


class Deadly(FakeModel):
    """Kills its process instead of encoding more than some windows, or interrupts it."""

    def __init__(self, most: int, *, number: signal.Signals = signal.SIGKILL) -> None:
        super().__init__()
        self.most, self.number = most, number

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        if self.num_encoded + len(frames) > self.most:
            os.kill(os.getpid(), self.number)
        return super().encode_frames(frames)


@pytest.mark.usefixtures("decoded_here")
@pytest.mark.parametrize("part", [None, (0, 1)])
def test_kills_at_any_window_lose_no_finished_ones(
    videos: Path, part: tuple[int, int] | None
) -> None:
    update(videos, "whole")
    rng, num_kills = random.Random(0), 0
    model: FakeModel = Deadly(rng.randint(6, 14))  # so many that something is written
    while killed(lambda: update(videos, model=model, part=part)):  # noqa: B023
        num_kills += 1
        assert num_kills <= NUM_WINDOWS
        model = Deadly(rng.randint(6, 14))
    assert num_kills >= 3
    assert content(videos.parent / "index") == content(videos.parent / "whole")


@pytest.mark.usefixtures("decoded_here")
def test_finished_windows_are_not_encoded_again(videos: Path) -> None:
    # Of one that is killed before window 13, three times four are written.
    for part in (None, (0, 1)):
        folder = f"index{part}"
        assert killed(lambda: update(videos, folder, model=Deadly(13), part=part))  # noqa: B023
        model = FakeModel()
        done = update(videos, folder, model=model, part=part).indexed
        assert model.num_encoded == done.num_windows
        total = sum(map(len, content(videos.parent / folder).values()))
        assert total - 12 <= model.num_encoded <= total - 13 + 2 * PER_COMMIT


@pytest.mark.usefixtures("decoded_here")
def test_a_part_does_finished_files_once(videos: Path) -> None:
    # The files in the order of their reading: the last one is interrupted.
    with pytest.raises(KeyboardInterrupt):
        update(videos, part=(0, 1), model=Deadly(32, number=signal.SIGINT))
    own = videos.parent / "index/parts/1-of-1"
    with Index(own) as index:
        finished = sum(index.num_windows(one.id) for one in index.files() if one.is_complete)
    assert finished > 0
    model = FakeModel()
    update(videos, part=(0, 1), model=model)
    total = sum(map(len, content(videos.parent / "index").values()))
    assert model.num_encoded <= total - finished


@pytest.mark.usefixtures("decoded_here")
def test_what_was_deleted_since_a_part_was_killed_is_left_out(videos: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        update(videos, part=(0, 1), model=Deadly(32, number=signal.SIGINT))
    with Index(videos.parent / "index/parts/1-of-1") as index:
        gone = next(one.path for one in index.files() if one.is_complete)
    gone.unlink()
    update(videos, part=(0, 1))
    assert content(videos.parent / "index").keys() == {one.name for one in videos.iterdir()}


@pytest.mark.usefixtures("decoded_here")
@pytest.mark.parametrize("is_written", [True, False])
def test_a_kill_between_vectors_and_commit_leaves_rows_for_others(
    videos: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    update(videos, "whole")
    write, num_writes = IndexWriter._write, 0  # noqa: SLF001

    def writing(self: IndexWriter, row: int, vectors: np.ndarray) -> None:
        nonlocal num_writes
        num_writes += 1
        if num_writes < 3:
            write(self, row, vectors)
            return
        write(self, row, vectors if is_written else vectors[:1])
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(IndexWriter, "_write", writing)
    assert killed(lambda: update(videos))
    monkeypatch.undo()
    update(videos)
    folder = videos.parent / "index"
    assert content(folder) == content(videos.parent / "whole")
    with Index(folder) as index:
        assert len(index.vectors()) == len(index.windows().row)


@pytest.mark.usefixtures("decoded_here")
def test_a_file_that_changes_after_a_kill_is_read_from_its_start(videos: Path) -> None:
    for path in videos.glob("[so]*"):
        path.unlink()
    assert killed(lambda: update(videos, model=Deadly(13)))
    write_levels(videos / "long.mp4", [5, 5, 5])
    update(videos)
    found = content(videos.parent / "index")["long.mp4"]
    assert [(number, int(np.argmax(vector))) for number, vector in found] == [(0, 5), (1, 5)]


@pytest.mark.usefixtures("decoded_here")
def test_a_part_that_was_killed_at_once_is_no_obstacle(videos: Path) -> None:
    (videos.parent / "index/parts/2-of-3").mkdir(parents=True)
    (videos.parent / "index/parts/2-of-3/index.lock").touch()
    assert update(videos).indexed.num_files == 3
    assert not list((videos.parent / "index/parts").iterdir())


@pytest.mark.usefixtures("decoded_here")
def test_the_seconds_foreseen_are_those_left(videos: Path) -> None:
    calls: list[tuple[float, float]] = []

    def advance(done: Indexed, total: float) -> None:
        calls.append((done.seconds, total))

    assert killed(lambda: update(videos, model=Deadly(20)))
    done = update(videos, advance=advance).indexed
    assert calls[-1] == pytest.approx((done.seconds, done.seconds))
    assert all(before <= after for (before, _), (after, _) in zip(calls, calls[1:], strict=False))
    assert done.seconds < 16 + 1 + 1.5


def children() -> set[str]:
    """Ids of the processes that this one has started."""
    return {
        one
        for path in Path("/proc/self/task").glob("*/children")
        for one in path.read_text().split()
    }


def test_processes_and_threads_end_with_an_interrupt(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = threading.active_count(), children()
    model = Deadly(13, number=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        update(videos, model=model, num_workers=2)
    assert (threading.active_count(), children()) == before
    # One that comes before the threads, when a process looks up lengths.
    call = IsolatedProcess.call

    def interrupted(self: IsolatedProcess, *arguments: Any) -> Any:
        call(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(IsolatedProcess, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(videos, num_workers=2)
    assert (threading.active_count(), children()) == before
    # A bug in a thread.
    monkeypatch.setattr(IsolatedProcess, "call", call)
    monkeypatch.setattr(WindowReader, "read", lambda *_, **__: iter([1 / 0]))
    with pytest.raises(ZeroDivisionError):
        update(videos, num_workers=2)
    assert (threading.active_count(), children()) == before
    monkeypatch.undo()
    assert update(videos).indexed.num_files == 3


@pytest.mark.usefixtures("decoded_here")
def test_few_windows_are_in_memory(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    num_read, num_most, model = 0, 0, FakeModel()

    def read(*_: object, **__: object) -> Iterator[Window]:
        nonlocal num_read, num_most
        for number in range(100):
            num_read += 1
            num_most = max(num_most, num_read - model.num_encoded)
            yield Window(number / 2, number / 2 + 1, np.zeros((2, 3, 4, 4), np.uint8))

    monkeypatch.setattr(WindowReader, "read", read)
    done = update(videos, model=model).indexed
    assert done.num_windows == 300
    # Those that wait, those being encoded, and one that is about to wait.
    most = indexing._WINDOWS_AHEAD + indexing.BATCH_SIZE + 1  # noqa: SLF001
    assert num_most <= most


def test_files_that_cannot_be_read_wait_for_no_windows() -> None:
    events = iter([("job", "no video"), ("job", None)])
    batches = indexing._batches(events)  # type: ignore[arg-type]  # noqa: SLF001
    assert next(batches) == [("job", "no video")]
    assert next(batches) == [("job", None)]
