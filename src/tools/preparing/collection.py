"""Preparing all videos of a collection, so that an interrupted command goes on.

In the output folder, beside the videos: ``failed.jsonl`` lists the videos that could not be
prepared, with the reasons; ``.prepared/`` holds the settings and what became of each video.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.datasets.decoding.contract import Video, VideoReadError
from src.datasets.storage.contract import VideoStorage
from src.errors import InputError
from src.tools.parallel import Failure, Journal, run_isolated
from src.tools.preparing.encoding import Encoded, prepare_video
from src.tools.preparing.settings import Preparation
from src.tools.video_writers import VideoWriter, open_writer
from src.training.locking import RunLock
from src.training.writing import write_atomically, write_json

FAILED = "failed.jsonl"
NOTES = ".prepared"
"""Hidden: what else is in the folder of a collection may be taken for a video."""
LOGFILE_REDRAW_SECONDS = 5.0  # of a progress bar that is not on a terminal


@dataclass(frozen=True, slots=True)
class Limits:
    """What the work may take."""

    num_workers: int
    seconds: float
    """For a video; 0: any number."""
    megabytes: int
    """Of memory for each worker; 0: any number."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a collection."""

    num_videos: int
    prepared: dict[str, dict[str, int]]
    """Video id -> the figures of its preparation; empty where a kill came before the note."""
    failed: dict[str, Failure]

    def total(self, figure: str) -> int:
        """The sum of a figure over the videos whose figures are known."""
        return sum(figures.get(figure, 0) for figures in self.prepared.values())


@dataclass(frozen=True, slots=True)
class _Job:
    video_id: str
    video: Video | None
    trouble: str = "it is not there any more"
    """Why there is no video."""


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
        kind: how they are stored, one of ``KINDS`` of ``src.tools.video_writers``.
        preparation: what they shall be like.
        limits: what the work may take.
        retry_failed: try again what failed in an earlier run.

    Raises:
        InputError: the output folder is of other settings, or holds something else.
        RunError: the disk is full.
    """
    notes = output / NOTES
    _check_place(videos.root, output)
    settings = {"videos": str(videos.root.resolve()), "kind": kind, **preparation.as_record()}
    is_new = _check_settings(notes / "settings.json", settings, output=output)
    (output / FAILED).unlink(missing_ok=True)  # written anew in the end
    with open_writer(output, kind) as writer:
        lock = RunLock(notes / "lock", root=output)
        if is_new:
            write_json(notes / "settings.json", settings)
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
            f"--output {output} lies in --videos {videos}: prepared videos would be taken for "
            "originals; name a folder outside of it"
        )


def _check_settings(path: Path, settings: dict[str, Any], *, output: Path) -> bool:
    """Whether nothing was prepared there before.

    Raises:
        InputError: something was, with other settings.
    """
    if not path.exists():
        return True
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): empty the folder {output}") from error
    names = [name for name in {**stored, **settings} if stored.get(name) != settings.get(name)]
    if names:
        told = "; ".join(f"{n} was {stored.get(n)}, is {settings.get(n)}" for n in names)
        raise InputError(
            f"--output {output} holds videos that were prepared otherwise ({told}): give the same "
            "flags to go on with them, or name another folder"
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
        if not self.video_ids:
            raise InputError(f"--videos {videos.root} holds no videos")

    def run(self, limits: Limits, *, retry_failed: bool) -> None:
        """Prepare what is left."""
        failed = {} if retry_failed else self._failed()
        left = [name for name in self.video_ids if name not in self.writer and name not in failed]
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)
        outcomes = run_isolated(
            partial(_prepare_job, scratch=self.scratch, preparation=self.preparation),
            self._jobs(left),
            num_workers=limits.num_workers,
            seconds=limits.seconds,
            megabytes=limits.megabytes,
        )
        assert isinstance(outcomes, Generator)
        try:
            for job, outcome in tqdm(
                outcomes,
                total=len(self.video_ids),
                initial=len(self.video_ids) - len(left),
                desc="prepared",
                unit="video",
                mininterval=0.1 if sys.stderr.isatty() else LOGFILE_REDRAW_SECONDS,
            ):
                self._take(job.video_id, outcome, num_bytes=_size(job.video))
        finally:
            outcomes.close()  # ends the workers, which write there
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _jobs(self, video_ids: Sequence[str]) -> Iterator[_Job]:
        for video_id in video_ids:
            try:
                yield _Job(video_id, self.videos.fetch(video_id))
            except VideoReadError as error:
                yield _Job(video_id, None, str(error))

    def _take(self, video_id: str, outcome: Encoded | Failure, *, num_bytes: int) -> None:
        path = _unfinished(self.scratch, video_id)
        if isinstance(outcome, Encoded):
            try:
                self.writer.put(video_id, path)
            except InputError as error:  # an id that this kind of storage cannot hold
                outcome = Failure(str(error), cut_off=False)
        path.unlink(missing_ok=True)
        if isinstance(outcome, Failure):
            self.journal.add(video_id, {"failed": asdict(outcome)})
        else:
            self.journal.add(video_id, {"bytes_before": num_bytes, **asdict(outcome)})

    def _failed(self) -> dict[str, Failure]:
        return {
            video_id: Failure(**note["failed"])
            for video_id, note in self.journal.done.items()
            if "failed" in note and video_id not in self.writer
        }

    def write_failed(self, path: Path) -> None:
        """List what failed, if anything did."""
        lines = [
            json.dumps({"video_id": video_id, **asdict(failure)}, ensure_ascii=False) + "\n"
            for video_id, failure in sorted(self._failed().items())
        ]
        if lines:
            write_atomically(path, lambda name: name.write_text("".join(lines), encoding="utf-8"))

    def summary(self) -> Summary:
        """What became of the collection so far."""
        done = self.journal.done
        return Summary(
            num_videos=len(self.video_ids),
            prepared={v: done.get(v, {}) for v in self.video_ids if v in self.writer},
            failed=self._failed(),
        )


def _size(video: Video | None) -> int:
    if video is None:
        return 0
    return len(video) if isinstance(video, bytes) else video.stat().st_size


def _unfinished(scratch: Path, video_id: str) -> Path:
    """Where a video is written first; ids may be too long for a file's name."""
    return scratch / f"{hashlib.sha256(video_id.encode()).hexdigest()}.mp4"


def _prepare_job(job: _Job, *, scratch: Path, preparation: Preparation) -> Encoded:
    """Prepare one video; done in a process of its own."""
    if job.video is None:
        raise VideoReadError(job.trouble)
    return prepare_video(job.video, _unfinished(scratch, job.video_id), preparation=preparation)
