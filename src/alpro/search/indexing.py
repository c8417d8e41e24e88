"""Indexing of a collection: files are read by threads with a process each, windows encoded here."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from threading import Lock, Thread
from typing import NamedTuple, Self

import numpy as np

from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.decoding.windows import Window, WindowPlan, WindowReader, declared_seconds
from alpro.errors import raise_scarcity
from alpro.isolation.process import CallCutOffError
from alpro.search.collection import Collection, digest_of, state_of
from alpro.search.index import FileState, IndexedFile
from alpro.search.index_writer import IndexWriter

CHANGED = "it changed while it was read; index again"
BATCH_SIZE = 8  # windows that are encoded at once
_WINDOWS_PER_COMMIT = 64  # at most as many are lost when the process is killed
_WINDOWS_AHEAD = 32  # that are decoded, but not yet encoded
_NUM_PROBED = 256  # files whose length is looked up to foresee the whole
_POLL_SECONDS = 0.1
_FAILURES = (VideoReadError, CallCutOffError, OSError)

Advance = Callable[["Indexed", float], object]
"""Takes what is done, and the seconds of video that all will have been."""
Encode = Callable[[np.ndarray], np.ndarray]
"""(B, T, 3, S, S) uint8 frames to (B, E) vectors."""


class Changes(NamedTuple):
    """Difference between a collection and its index."""

    new: list[Path]
    """Not indexed, changed, or not indexed to the end."""
    moved: list[tuple[IndexedFile, Path]]
    deleted: list[IndexedFile]


@dataclass(slots=True)
class Indexed:
    """Work done by an indexing."""

    num_files: int = 0
    num_windows: int = 0
    seconds: float = 0
    """Of video."""
    finished_seconds: float = 0
    """Of the videos that are done to the end, less what earlier calls have done."""
    finished_bytes: int = 0
    unreadable: dict[Path, str] = field(default_factory=dict)
    """Reason by file."""


def changes_of(
    known: Sequence[IndexedFile],
    collection: Collection,
    *,
    roots: Sequence[Path],
    retry: bool = False,
) -> Changes:
    """Compare a collection with its index.

    Args:
        known: files of the index.
        collection: what is on disk; files in what could not be looked at count as still there.
        roots: folders in which that was found; files elsewhere are left alone.
        retry: count unreadable files as new ones.
    """
    videos, by_path = collection.videos, {one.path: one for one in known}
    new: dict[Path, None] = {}
    for path, state in videos.items():
        one = by_path.get(path)
        is_done = one is not None and one.is_complete and one.state == state
        if one is None or not is_done or (retry and one.reason is not None):
            new[path] = None
    # A file that is gone may be one of the new ones, under another name.
    gone = {
        (one.digest, one.state): one
        for one in known
        if one.is_complete and one.path not in videos and not os.path.lexists(one.path)
    }
    sizes, moved = {state.size for _, state in gone}, {}
    for path in [path for path in new if videos[path].size in sizes]:
        with suppress(OSError):
            if (one := gone.pop((digest_of(path), videos[path]), None)) is not None:
                moved[one.id] = (one, path)
                del new[path]
    tops = {Path(os.path.abspath(root)) for root in roots}
    deleted = [
        one
        for one in known
        if one.path not in videos
        and one.id not in moved
        and (above := {one.path, *one.path.parents}) & tops
        and not above & collection.unreadable.keys()
    ]
    return Changes(list(new), list(moved.values()), deleted)


def index_videos(
    writer: IndexWriter,
    videos: Mapping[Path, FileState],
    *,
    encode: Encode,
    plan: WindowPlan,
    num_workers: int,
    advance: Advance | None = None,
) -> Indexed:
    """Read and encode all windows of videos, and write them to the index.

    What an earlier call, killed at any moment, has written is kept, and gone on from.

    Args:
        writer: of the index.
        videos: the files, with their states.
        encode: the video encoder.
        plan: the index's windows, with the model's frames.
        num_workers: files that are decoded at once.
        advance: called after each window.
    """
    known = {one.path: one for one in writer.files()}
    jobs = [_job_of(writer, path, state, known.get(path)) for path, state in videos.items()]
    done = Indexed(finished_seconds=-sum(job.seconds for job in jobs))
    size = sum(state.size for state in videos.values())
    with _Reading(jobs, plan, num_workers) as reading:
        per_byte = reading.seconds_per_byte()
        for events in _batches(reading):
            frames = [event.frames for _, event in events if isinstance(event, Window)]
            vectors = iter(encode(np.stack(frames)) if frames else ())
            for job, event in events:
                before = job.seconds
                if isinstance(event, Window):
                    job.vectors.append(next(vectors))
                    job.seconds = event.end
                    done.num_windows += 1
                    if len(job.vectors) >= _WINDOWS_PER_COMMIT:
                        job.write(writer)
                else:
                    job.write(writer)
                    reason = event or _why_changed(job)
                    writer.finish(job.begun(writer), reason=reason)
                    done.num_files += 1
                    done.finished_seconds += job.seconds
                    done.finished_bytes += job.state.size
                    if reason is not None:
                        done.unreadable[job.path] = reason
                done.seconds += job.seconds - before
                if advance is not None:
                    left = (size - done.finished_bytes) * per_byte
                    advance(done, done.finished_seconds + left)
    return done


@dataclass(slots=True)
class _Job:
    """A file that is being indexed."""

    path: Path
    state: FileState
    file: int | None
    """Its id, if an earlier call has begun it."""
    first: int
    """Number of the first window that is missing."""
    seconds: float
    """End of the last window."""
    vectors: list[np.ndarray] = field(default_factory=list)

    def begun(self, writer: IndexWriter) -> int:
        """Begin the file, if nothing has yet; returns its id."""
        if self.file is None:
            try:
                digest = digest_of(self.path)
            except OSError:
                digest = b""  # reading it says why
            self.file = writer.begin(self.path, self.state, digest)
        return self.file

    def write(self, writer: IndexWriter) -> None:
        if self.vectors:
            writer.add(self.begun(writer), np.stack(self.vectors), duration=self.seconds)
            self.vectors = []


def _job_of(writer: IndexWriter, path: Path, state: FileState, known: IndexedFile | None) -> _Job:
    if known is not None and not known.is_complete and known.state == state:
        return _Job(path, state, known.id, writer.num_windows(known.id), known.duration)
    return _Job(path, state, file=None, first=0, seconds=0.0)


def _why_changed(job: _Job) -> str | None:
    try:
        return None if state_of(job.path) == job.state else CHANGED
    except OSError:
        return "it disappeared while it was read"


_Event = tuple[_Job, Window | str | None]
"""A window of a file, or its end: None, or the reason why there are no more windows."""


def _batches(events: Iterable[_Event]) -> Iterator[list[_Event]]:
    """Gather events until there are enough windows to encode."""
    batch, num_windows = [], 0
    for event in events:
        batch.append(event)
        num_windows += isinstance(event[1], Window)
        if num_windows in (0, BATCH_SIZE):  # files that cannot be read wait for no windows
            yield batch
            batch, num_windows = [], 0
    yield batch


class _Reading:
    """Threads that read files, each with an isolated process; iterating gives their events."""

    def __init__(self, jobs: Sequence[_Job], plan: WindowPlan, num_workers: int) -> None:
        self._all, self._jobs, self._plan = jobs, iter(jobs), plan
        self._events: Queue[_Event | BaseException | None] = Queue(maxsize=_WINDOWS_AHEAD)
        self._lock, self._is_stopped = Lock(), False
        self._readers = [WindowReader() for _ in range(max(1, min(num_workers, len(jobs))))]
        self._threads = [Thread(target=self._work, args=(one,)) for one in self._readers]

    def seconds_per_byte(self) -> float:
        """Estimate the length of the files per byte, by the lengths that some of them declare."""
        sample = random.Random(0).sample(self._all, min(_NUM_PROBED, len(self._all)))
        seconds, size = 0.0, 0
        for job in sample:
            try:
                seconds += self._readers[0].process.call(declared_seconds, job.path)
                size += job.state.size
            except _FAILURES as error:
                raise_scarcity(error)
        return seconds / max(size, 1)

    def __enter__(self) -> Self:
        return self

    def __iter__(self) -> Iterator[_Event]:
        for thread in self._threads:
            thread.start()
        num_running = len(self._threads)
        while num_running:
            event = self._events.get()
            if isinstance(event, BaseException):
                raise event
            if event is None:
                num_running -= 1
            else:
                yield event

    def __exit__(self, *_: object) -> None:
        # Cut off the calls that run, and make room for threads that wait for it.
        self._is_stopped = True
        for reader in self._readers:
            reader.process.abort()
        for thread in self._threads:
            while thread.is_alive():
                with suppress(Empty):
                    self._events.get(timeout=_POLL_SECONDS)
        for reader in self._readers:  # of threads that have not been started
            reader.close()

    def _work(self, reader: WindowReader) -> None:
        try:
            while (job := self._next()) is not None:
                reason = None
                try:
                    for window in reader.read(job.path, plan=self._plan, first=job.first):
                        self._events.put((job, window))
                except _FAILURES as error:
                    raise_scarcity(error)
                    reason = str(error) or type(error).__name__
                self._events.put((job, reason))
            self._events.put(None)
        except BaseException as error:  # noqa: BLE001  # raised where events are taken
            self._events.put(error)
        finally:
            reader.close()

    def _next(self) -> _Job | None:
        with self._lock:
            return None if self._is_stopped else next(self._jobs, None)
