"""Put a folder of videos into an LMDB: ``alpro videos-to-lmdb --videos DIR ...``.

Keys are video ids and values the files' bytes, as ClipBERT lays it out. The command can be
interrupted and run again; it resumes. At the end it compares the LMDB with the files, and writes
again those that differ.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from alpro.commands.cli import MAX_WORKERS, at_most, exit_code_of, path_flag, progress
from alpro.errors import InputError, pluralize
from alpro.training.atomic_io import write_text
from alpro.training.writable import check_output_folder

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

    return exit_code_of(work, can_resume=True) or int(bool(outcome[0].failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro videos-to-lmdb",
        description="Put a folder of videos, subfolders included, into an LMDB.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--videos", type=path_flag, required=True, help="the folder")
    add("--output", type=path_flag, required=True, help="folder of the LMDB, new or begun before")
    add("--ext", nargs="+", help="of the files to take, as in mp4 avi (default: all of videos)")
    add(
        "--ids",
        choices=("name", "path"),
        default="name",
        help="a video's id: its file's name, or its path from the folder; both without extension"
        " (default: name)",
    )
    add(
        "--n_workers",
        "--workers",
        dest="workers",
        type=at_most(MAX_WORKERS, lowest=1),
        default=4,
        help="files read at a time (default: 4)",
    )
    add(
        "--verify",
        action="store_true",
        help=f"compare the bytes of all videos in the end, not of {NUM_COMPARED}",
    )
    return parser


@dataclass
class Outcome:
    """Counts and failures of one command."""

    num_written: int = 0
    num_there: int = 0
    num_replaced: int = 0
    num_compared: int = 0
    num_others: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    """Of the videos that were written now, in bytes."""
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
    """Write or resume an LMDB, compare it with the files, and print a summary.

    Args:
        videos: the folder with the files.
        output: folder of the LMDB.
        extensions: of the files to take, with or without a dot; None: those of videos.
        ids: ``name`` or ``path``, the source of a video's id.
        num_workers: files read at a time.
        verifies_all: whether the bytes of all videos are compared, or of some.

    Raises:
        InputError: there are no videos, two have one id, or ``output`` holds something else.
        RunError: the disk is full.
    """
    from alpro.commands.video_writers import open_writer
    from alpro.datasets.storage.lmdb_videos import VideoLmdb

    check_output_folder(output, named_by="--output")
    files = _files_by_id(videos, extensions=extensions, ids=ids)
    outcome = Outcome()
    with open_writer(output, "lmdb") as writer:
        # Write the videos that an earlier command has not.
        left = {video_id: path for video_id, path in files.items() if video_id not in writer}
        outcome.num_there = len(files) - len(left)
        if outcome.num_there:
            print(f"{outcome.num_there:,} of {pluralize(len(files), 'video')} written before")
        _write(left, outcome, put=writer.put, title="writing", num_workers=num_workers)
        outcome.num_written = len(left) - len(outcome.failures)
    # Compare with the files, and replace those that have changed since.
    changed = _differing(files, output, outcome, all_bytes=verifies_all)
    if changed:
        with open_writer(output, "lmdb") as writer:
            _write(changed, outcome, put=writer.replace, title="replacing", num_workers=num_workers)
        for path in _differing(changed, output, outcome, all_bytes=True).values():
            outcome.failures[path] = "the file changes while it is read"
        outcome.num_replaced = sum(path not in outcome.failures for path in changed.values())
    outcome.num_others = len(set(VideoLmdb(output).video_ids()) - files.keys())
    _report(len(files), output, outcome)
    return outcome


def _write(
    files: Mapping[str, Path],
    outcome: Outcome,
    *,
    put: Callable[[str, bytes], None],
    title: str,
    num_workers: int,
) -> None:
    """Put files into the LMDB, and record those that cannot be read or stored."""
    read = _read_ahead(files, num_workers=num_workers)
    for video_id, data in progress(read, len(files), title, "video"):
        try:
            if isinstance(data, str):
                raise InputError(data)
            put(video_id, data)
            outcome.sizes[video_id] = len(data)
        except InputError as error:
            outcome.failures[files[video_id]] = str(error)


def _files_by_id(videos: Path, *, extensions: Sequence[str] | None, ids: str) -> dict[str, Path]:
    from alpro.datasets.storage import VideoFolder
    from alpro.datasets.storage.directory_index import VIDEO_EXTENSIONS, split_extension

    if not videos.is_dir():
        raise InputError(f"--videos: there is no folder {videos}")
    # Extensions may be given with or without a dot.
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
                f"--videos {videos}: {other} and {name} have the same id, {video_id!r}; remove "
                f"one, or distinguish them with {remedy}"
            )
        files[video_id] = videos / name
    if not files:
        raise InputError(f"--videos {videos}: no file ends in one of {' '.join(sorted(taken))}")
    return files


def _read_ahead(
    files: Mapping[str, Path], *, num_workers: int
) -> Iterator[tuple[str, bytes | str]]:
    """Bytes of the files in order, or the reason of a failure, read ahead by threads."""
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
        if path.exists() and not path.is_file():  # reading a pipe would block
            return "it is not a regular file"
        return path.read_bytes() or "the file is empty"
    except OSError as error:
        return _trouble(error)


def _trouble(error: OSError) -> str:
    return f"the file cannot be read: {error.strerror}"


def _differing(
    files: Mapping[str, Path], output: Path, outcome: Outcome, *, all_bytes: bool
) -> dict[str, Path]:
    """Files that differ from the LMDB, by size or, for all or some of them, by bytes."""
    from alpro.datasets.storage.lmdb_videos import VideoLmdb

    storage = VideoLmdb(output)
    # Sizes of all videos are compared, bytes of every step-th one.
    good = {video_id: path for video_id, path in files.items() if path not in outcome.failures}
    step = 1 if all_bytes else max(1, len(good) // NUM_COMPARED)
    differing = {}
    compared = progress(good.items(), len(good), "comparing", "video")
    for number, (video_id, path) in enumerate(compared):
        try:
            there = None
            if number % step == 0 or video_id not in outcome.sizes:
                there = storage.fetch(video_id) or b""
            size = outcome.sizes[video_id] if there is None else len(there)
            is_same = size == path.stat().st_size and (
                number % step != 0 or there == path.read_bytes()
            )
        except OSError as error:
            outcome.failures[path] = _trouble(error)
            continue
        if not is_same:
            differing[video_id] = path
        elif number % step == 0:
            outcome.num_compared += 1
    return differing


def _report(num_files: int, output: Path, outcome: Outcome) -> None:
    size = (output / "data.mdb").stat().st_size
    good = num_files - len(outcome.failures)
    print(
        f"{output}: {good:,} of {pluralize(num_files, 'video')}, {outcome.num_written:,} of them "
        f"written now; {size / 1e9:.2f} GB. Sizes match the files; the bytes of "
        f"{pluralize(outcome.num_compared, 'video')} were compared."
    )
    # Mention only counts that are not zero.
    if outcome.num_replaced:
        print(f"{pluralize(outcome.num_replaced, 'video')} replaced, whose files had changed.")
    if outcome.num_others:
        print(
            f"It also holds {pluralize(outcome.num_others, 'video')} without a file in the folder."
        )
    # Failures go into a file; the first ones are printed.
    lines = [f"{path}\t{reason}" for path, reason in outcome.failures.items()]
    listed = output / FAILURES_FILE
    if not lines:
        listed.unlink(missing_ok=True)
        return
    write_text(listed, "".join(f"{line}\n" for line in lines))
    print(f"{pluralize(len(lines), 'video')} failed, see {listed}:", file=sys.stderr)
    for line in lines[:NUM_NAMED]:
        print(f"  {line}", file=sys.stderr)
