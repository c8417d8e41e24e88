"""Put a folder of videos into an LMDB: ``python -m src.tools.videos_to_lmdb --videos DIR ...``.

Keys are video ids and values the files' bytes, as ClipBERT lays it out. The command can be
interrupted and given again; it goes on where it was. At the end it compares what it wrote with the
files.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from src.errors import InputError
from src.tools.command import counted, exit_code_of, positive

LOGFILE_REDRAW_SECONDS = 5.0  # of a progress bar that is not on a terminal
NUM_COMPARED = 100  # videos whose bytes are compared without --verify
NUM_NAMED = 10  # of those that a message names
FAILURES_FILE = "failed_videos.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 1 where some video is not in the LMDB."""
    flags = _parser().parse_args(arguments)
    outcome: list[Outcome] = []

    def work() -> None:
        outcome.append(
            write_lmdb(
                flags.videos,
                flags.output,
                extensions=flags.ext,
                ids=flags.ids,
                num_workers=flags.workers,
                verifies_all=flags.verify,
            )
        )

    return exit_code_of(work) or int(bool(outcome[0].failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.videos_to_lmdb",
        description="Put a folder of videos, subfolders included, into an LMDB.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="the folder")
    add("--output", type=Path, required=True, help="folder of the LMDB, new or begun before")
    add("--ext", nargs="+", help="of the files to take, as in mp4 avi (default: all of videos)")
    add(
        "--ids",
        choices=("name", "path"),
        default="name",
        help="a video's id: its file's name, or its path from the folder; both without extension"
        " (default: name)",
    )
    add("--workers", type=positive, default=4, help="files read at a time (default: 4)")
    add(
        "--verify",
        action="store_true",
        help=f"compare the bytes of all videos in the end, not of {NUM_COMPARED}",
    )
    return parser


@dataclass
class Outcome:
    """What became of the files."""

    num_written: int = 0
    num_there: int = 0
    num_compared: int = 0
    num_others: int = 0
    failures: dict[Path, str] = field(default_factory=dict)


def write_lmdb(
    videos: Path,
    output: Path,
    *,
    extensions: Sequence[str] | None,
    ids: str,
    num_workers: int,
    verifies_all: bool,
) -> Outcome:
    """Write an LMDB, or go on with it, compare it with the files, and print what was done.

    Args:
        videos: the folder with the files.
        output: folder of the LMDB.
        extensions: of the files to take, with or without a dot; None: those of videos.
        ids: ``name`` or ``path``, what makes a video's id.
        num_workers: files read at a time.
        verifies_all: whether all bytes are compared in the end, or those of some videos.

    Raises:
        InputError: there are no videos, two have one id, or ``output`` holds something else.
        RunError: the disk is full.
    """
    from src.tools.video_writers import open_writer

    files = _files_by_id(videos, extensions=extensions, ids=ids)
    outcome = Outcome()
    with open_writer(output, "lmdb") as writer:
        left = {video_id: path for video_id, path in files.items() if video_id not in writer}
        outcome.num_there = len(files) - len(left)
        if outcome.num_there:
            print(f"{counted(outcome.num_there, 'video')} of {len(files):,} are there already")
        with _progress("writing", total=len(left)) as progress:
            for video_id, data in _read_ahead(left, num_workers=num_workers):
                try:
                    if isinstance(data, str):
                        raise InputError(data)
                    writer.put(video_id, data)
                    outcome.num_written += 1
                except InputError as error:
                    outcome.failures[files[video_id]] = str(error)
                progress.update()
    _compare(files, output, outcome, all_bytes=verifies_all)
    _report(len(files), output, outcome)
    return outcome


def _files_by_id(videos: Path, *, extensions: Sequence[str] | None, ids: str) -> dict[str, Path]:
    from src.datasets.storage import VIDEO_EXTENSIONS, VideoFolder
    from src.datasets.storage.names import split_extension

    if not videos.is_dir():
        raise InputError(f"--videos: there is no folder {videos}")
    taken = {f".{each.lower().lstrip('.')}" for each in extensions or VIDEO_EXTENSIONS}
    files: dict[str, Path] = {}
    for name in VideoFolder(videos).video_files():
        stem, extension = split_extension(name)
        if extension not in taken:
            continue
        video_id = stem if ids == "path" else os.path.basename(stem)
        if video_id in files:
            other = files[video_id].relative_to(videos)
            remedy = "--ext" if other.parent == Path(name).parent else "--ids path"
            raise InputError(
                f"--videos {videos}: {other} and {name} have one id, {video_id!r}; remove one, or "
                f"tell them apart with {remedy}"
            )
        files[video_id] = videos / name
    if not files:
        raise InputError(f"--videos {videos}: no file ends in one of {' '.join(sorted(taken))}")
    return files


def _read_ahead(
    files: Mapping[str, Path], *, num_workers: int
) -> Iterator[tuple[str, bytes | str]]:
    """The files' bytes in order, or why there are none; some are read while others are used."""
    pending: deque[tuple[str, Future[bytes | str]]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        for video_id, path in files.items():
            pending.append((video_id, pool.submit(_bytes_or_reason, path)))
            if len(pending) > num_workers:
                first, data = pending.popleft()
                yield first, data.result()
        for video_id, data in pending:
            yield video_id, data.result()


def _bytes_or_reason(path: Path) -> bytes | str:
    try:
        return path.read_bytes() or "the file is empty"
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"


def _compare(files: Mapping[str, Path], output: Path, outcome: Outcome, *, all_bytes: bool) -> None:
    """Look whether the LMDB holds the files: all sizes, and the bytes of all or of some."""
    from src.datasets.storage import VideoLmdb

    storage = VideoLmdb(output)
    sizes = storage.sizes()
    good = {video_id: path for video_id, path in files.items() if path not in outcome.failures}
    step = 1 if all_bytes else max(1, len(good) // NUM_COMPARED)
    with _progress("comparing", total=len(good)) as progress:
        for number, (video_id, path) in enumerate(good.items()):
            size = sizes.get(video_id)
            if size is None:
                outcome.failures[path] = "it is not in the LMDB"
            elif size != path.stat().st_size or (
                number % step == 0 and storage.fetch(video_id) != path.read_bytes()
            ):
                outcome.failures[path] = "the LMDB holds other bytes than the file: write it anew"
            outcome.num_compared += number % step == 0
            progress.update()
    outcome.num_others = len(sizes.keys() - files.keys())


def _report(num_files: int, output: Path, outcome: Outcome) -> None:
    size = (output / "data.mdb").stat().st_size
    good = num_files - len(outcome.failures)
    print(
        f"{output}: {good:,} of {counted(num_files, 'video')}, {outcome.num_written:,} of them "
        f"written now; {size / 1e9:.2f} GB. All sizes are those of the files, and the bytes of "
        f"{outcome.num_compared:,} were compared."
    )
    if outcome.num_others:
        print(f"It also holds {counted(outcome.num_others, 'video')} of other files.")
    lines = [f"{path}\t{reason}" for path, reason in outcome.failures.items()]
    listed = output / FAILURES_FILE
    if not lines:
        listed.unlink(missing_ok=True)
        return
    listed.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{counted(len(lines), 'video')} failed, see {listed}:", file=sys.stderr)
    for line in lines[:NUM_NAMED]:
        print(f"  {line}", file=sys.stderr)


def _progress(title: str, *, total: int) -> tqdm:
    redraw = 0.1 if sys.stderr.isatty() else LOGFILE_REDRAW_SECONDS
    return tqdm(total=total, desc=title, unit="video", mininterval=redraw)


if __name__ == "__main__":
    sys.exit(main())
