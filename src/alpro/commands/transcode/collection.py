"""Preparation of all videos of a collection, resumable.

In the output folder, beside the videos: ``failed.jsonl`` lists the videos that could not be
prepared, with the reasons; ``.prepared/`` holds the settings and a note of each video. A video
without a note is not ours. Notes record size and time of the originals, so that those that have
changed since are prepared, or tried, again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from alpro.commands.cli import progress
from alpro.commands.parallel import Failure, Journal, run_isolated
from alpro.commands.transcode.encoding import DISK_ERRORS, Encoded, prepare_video
from alpro.commands.transcode.settings import Preparation
from alpro.commands.video_writers import VideoWriter, holds_videos, open_writer
from alpro.datasets.decoding.base import Video, VideoReadError
from alpro.datasets.storage import ImageFolder, VideoFolder, VideoStorage
from alpro.errors import InputError
from alpro.training.atomic_io import write_atomically, write_json
from alpro.training.writable import RunLock
from alpro.user_files import JsonError, read_json

FAILED = "failed.jsonl"
NOTES = ".prepared"
"""Hidden: what else is in the folder of a collection may be taken for a video."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on processes, time and memory."""

    num_workers: int
    seconds: float
    """For a video; 0: no limit."""
    megabytes: int
    """Of memory for each worker; 0: no limit."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Outcome of preparing a collection."""

    num_videos: int
    prepared: dict[str, dict[str, int]]
    """Video id -> the figures of its preparation."""
    failed: dict[str, Failure]
    stale: list[str]
    """Prepared videos whose originals changed since, in a storage that cannot replace them."""

    def total(self, figure: str) -> int:
        """The sum of a figure over the videos."""
        return sum(figures.get(figure, 0) for figures in self.prepared.values())


@dataclass(frozen=True, slots=True)
class _Job:
    video_id: str
    video: Video | None
    trouble: str = "there is no regular file"
    """Reason if there is no video."""
    stamp: dict[str, int] = field(default_factory=dict)
    """Size and time of the original, for its note."""


@dataclass(frozen=True, slots=True)
class _DiskTrouble:
    """Outcome of a video whose file could not be read this time."""

    reason: str


def prepare_collection(
    videos: VideoStorage,
    output: Path,
    *,
    kind: str,
    preparation: Preparation,
    limits: Limits,
    retry_failed: bool = False,
) -> Summary:
    """Prepare all videos that are not prepared yet.

    Args:
        videos: the originals.
        output: folder of the prepared videos.
        kind: of their storage, one of ``KINDS`` of ``alpro.commands.video_writers``.
        preparation: settings of the transcoding.
        limits: on processes, time and memory.
        retry_failed: try videos again that failed in an earlier run.

    Raises:
        InputError: the output folder has other settings, or other videos.
        RunError: the disk is full.
    """
    notes = output / NOTES
    if isinstance(videos, ImageFolder):
        raise InputError(f"--videos {videos.root} holds images; only videos are prepared")
    if not videos.video_ids():
        raise InputError(f"--videos {videos.root} holds no videos")
    _check_place(videos.root, output)
    settings = {"videos": str(videos.root.resolve()), "kind": kind, **preparation.as_record()}
    is_new = _check_settings(notes / "settings.json", settings, output=output)
    if is_new and holds_videos(output):
        raise InputError(
            f"--output {output} holds videos that this command has not prepared; choose another "
            "folder"
        )
    with open_writer(output, kind) as writer:
        lock = RunLock(notes / "lock", root=output, named_by="--output")
        if is_new:
            write_json(notes / "settings.json", settings)
        (output / FAILED).unlink(missing_ok=True)  # written again at the end
        # Failures are listed even if the work is interrupted.
        work = _Work(videos, writer, notes, preparation)
        try:
            work.run(limits, retry_failed=retry_failed)
        finally:
            work.write_failed(output / FAILED)
        summary = work.summary()
    del lock
    return summary


def _check_place(videos: Path, output: Path) -> None:
    inner, outer = output.resolve(), videos.resolve()
    if inner == outer or (outer.is_dir() and outer in inner.parents):
        raise InputError(
            f"--output {output} is inside --videos {videos}: prepared videos would be mistaken for "
            "originals; choose a folder outside of it"
        )


def _check_settings(path: Path, settings: dict[str, Any], *, output: Path) -> bool:
    """Whether the folder is new to this command.

    Raises:
        InputError: its videos were prepared with other settings.
    """
    if not path.exists():
        return True
    try:
        stored = read_json(path)
    except JsonError as error:
        raise InputError(f"{path} is not JSON ({error}): empty the folder {output}") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path} holds no settings: empty the folder {output}")
    names = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
    if names:
        message = "; ".join(f"{n} was {stored.get(n)}, is {settings.get(n)}" for n in names)
        raise InputError(
            f"--output {output} holds videos prepared with other settings ({message}): pass the "
            "same flags to resume, or choose another folder"
        )
    return False


class _Work:
    """The state of one command."""

    def __init__(
        self, videos: VideoStorage, writer: VideoWriter, notes: Path, preparation: Preparation
    ) -> None:
        self.videos = videos
        self.writer = writer
        self.preparation = preparation
        self.scratch = notes / "unfinished"
        self.journal = Journal(notes / "videos.jsonl")
        self.video_ids = videos.video_ids()
        self.stale: list[str] = []
        self.not_tried: dict[str, Failure] = {}
        """Failures not caused by the videos, which get no note."""

    def run(self, limits: Limits, *, retry_failed: bool) -> None:
        """Prepare the remaining videos."""
        left = [name for name in self.video_ids if self._is_left(name, retry_failed=retry_failed)]
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        # Transcode in isolated processes; store in this one.
        outcomes = run_isolated(
            partial(_prepare_job, scratch=self.scratch, preparation=self.preparation),
            self._jobs(left),
            num_workers=limits.num_workers,
            seconds=limits.seconds,
            megabytes=limits.megabytes,
        )
        assert isinstance(outcomes, Generator)
        total = len(self.video_ids)
        try:
            for job, outcome in progress(
                outcomes, total, "prepared", "video", initial=total - len(left)
            ):
                self._take(job, outcome)
        finally:
            outcomes.close()  # ends the workers, which write there
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _is_left(self, video_id: str, *, retry_failed: bool) -> bool:
        note = self.journal.done.get(video_id, {})
        if video_id in self.writer and not _is_of_prepared(note):
            reason = f"{self.writer.root} holds a video with this id that is not ours: remove it"
            self.not_tried[video_id] = Failure(reason, cut_off=False)
            return False
        if "failed" in note:
            return retry_failed or self._has_changed(video_id, note)
        if video_id not in self.writer:
            return True
        if not self._has_changed(video_id, note):
            return False
        if not self.writer.can_replace:
            self.stale.append(video_id)
        return self.writer.can_replace

    def _has_changed(self, video_id: str, note: Mapping[str, Any]) -> bool:
        """Whether an original file changed; videos of an LMDB or shards count as unchanged."""
        if not isinstance(self.videos, VideoFolder):
            return False
        return any(note.get(key) != value for key, value in _stamp(self.videos.fetch(video_id)))

    def _jobs(self, video_ids: Sequence[str]) -> Iterator[_Job]:
        for video_id in video_ids:
            try:
                video = self.videos.fetch(video_id)
                yield _Job(video_id, video, stamp=dict(_stamp(video)))
            except VideoReadError as error:
                yield _Job(video_id, None, str(error))

    def _take(self, job: _Job, outcome: Encoded | _DiskTrouble | Failure) -> None:
        path = _unfinished(self.scratch, job.video_id)
        if isinstance(outcome, Encoded):
            try:
                self._store(job.video_id, path, {**job.stamp, **asdict(outcome)})
            except InputError as error:  # an id that this kind of storage cannot hold
                outcome = Failure(str(error), cut_off=False)
        path.unlink(missing_ok=True)
        if isinstance(outcome, _DiskTrouble):
            self.not_tried[job.video_id] = Failure(outcome.reason, cut_off=False)
        elif isinstance(outcome, Failure):
            failed = {"failed": asdict(outcome), "is_there": job.video_id in self.writer}
            self.journal.add(job.video_id, {**failed, **job.stamp})

    def _store(self, video_id: str, path: Path, note: dict[str, int]) -> None:
        """Store a video and its note, so that a kill in between leads to another attempt."""
        if video_id in self.writer:  # until it is replaced, the old note is the right one
            self.writer.replace(video_id, path)
            self.journal.add(video_id, note)
        else:
            self.journal.add(video_id, note)
            self.writer.put(video_id, path)

    def _failed(self) -> dict[str, Failure]:
        notes = {video_id: self.journal.done.get(video_id, {}) for video_id in self.video_ids}
        noted = {v: Failure(**note["failed"]) for v, note in notes.items() if "failed" in note}
        return noted | self.not_tried

    def write_failed(self, path: Path) -> None:
        """Write the list of failed videos, if there are any."""
        lines = [
            json.dumps({"video_id": video_id, **asdict(failure)}, ensure_ascii=False) + "\n"
            for video_id, failure in sorted(self._failed().items())
        ]
        # Surrogates, of names that are not UTF-8, become the escapes of JSON.
        text = "".join(lines).encode("utf-8", "backslashreplace")
        if lines:
            write_atomically(path, lambda name: name.write_bytes(text))

    def summary(self) -> Summary:
        """Outcome so far."""
        failed = self._failed()
        done = [v for v in self.video_ids if v in self.writer and v not in failed]
        return Summary(
            num_videos=len(self.video_ids),
            prepared={video_id: self.journal.done.get(video_id, {}) for video_id in done},
            failed=failed,
            stale=self.stale,
        )


def _is_of_prepared(note: Mapping[str, Any]) -> bool:
    """Whether a stored video is the prepared one of this note, or an earlier version of it."""
    return bool(note) and ("failed" not in note or note.get("is_there", False))


def _stamp(video: Video | None) -> list[tuple[str, int]]:
    """Size and time that identify the version of an original."""
    if isinstance(video, bytes):
        return [("bytes_before", len(video))]
    try:
        status = None if video is None else video.stat()
    except OSError:  # reported when it is read
        status = None
    if status is None:
        return []
    return [("bytes_before", status.st_size), ("modified_ns", status.st_mtime_ns)]


def _unfinished(scratch: Path, video_id: str) -> Path:
    """Temporary path of a video; ids may be too long for a file name."""
    return scratch / f"{hashlib.sha256(os.fsencode(video_id)).hexdigest()}.mp4"


def _prepare_job(job: _Job, *, scratch: Path, preparation: Preparation) -> Encoded | _DiskTrouble:
    """Prepare one video, in a process of its own."""
    if job.video is None:
        raise VideoReadError(job.trouble)
    try:
        return prepare_video(job.video, _unfinished(scratch, job.video_id), preparation=preparation)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        return _DiskTrouble(f"the file cannot be read: {error.strerror}")
