"""Decoding speed of every decoder and storage, with one process and with several: ``bench decode``.

All read the same frames of the same videos, in turn within one run; the files are in memory, since
each has been read before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from alpro.commands.bench.processes import end_decoder, started_processes
from alpro.commands.cli import open_videos_of_flag, path_flag, positive
from alpro.commands.gallery.results import markdown_table
from alpro.configs.shared_options import DECODE_MEMORY, DECODE_TIMEOUT
from alpro.datasets.decoding import (
    Decoder,
    FrameSelector,
    SandboxedDecoder,
    Video,
    VideoReadError,
    make_decoder,
)
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.storage import VideoStorage
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError, pluralize
from alpro.installation import DECODERS, has_package

PLAIN_DECORD = "decord, as usually written"
"""What the others are compared with."""
GUARDED = "auto, guarded"
HEADER = (
    *("videos", "decoder", "processes", "clips a second (lowest to highest round)"),
    "as a multiple",
)


class PlainDecord:
    """Decord as code for the original reads with it, without care for broken files."""

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        """Read the wanted frames, (T, S, S, 3) uint8."""
        import decord

        size = preprocessing.size
        source = BytesIO(video) if isinstance(video, bytes) else str(video)
        try:
            reader = decord.VideoReader(source, width=size, height=size)
            frames: np.ndarray = reader.get_batch(select(len(reader)).tolist()).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise VideoReadError(str(error)) from error
        return frames


@dataclass(frozen=True, slots=True)
class Job:
    """One row of the table."""

    videos: Path
    decoder: str
    num_processes: int


@dataclass(frozen=True, slots=True)
class ClipReader:
    """Reads clips of one storage; can be sent to a process."""

    storage: VideoStorage
    decoder: Decoder
    video_ids: Sequence[str]
    num_frames: int
    size: int

    def read(self, position: int) -> None:
        """Read (T, 3, S, S) frames of a video.

        Raises:
            VideoReadError: it cannot be read, or is not there.
        """
        video_id = self.video_ids[position]
        video = self.storage.fetch(video_id)
        if video is None:
            raise VideoReadError(f"{self.storage.root} has no video {video_id!r}")
        select = partial(evenly, num_frames=self.num_frames)
        self.decoder.read(video, select, preprocessing=PixelPreprocessing(size=self.size))

    def can_read(self, position: int) -> bool:
        """Whether the decoder can read the video at this position."""
        try:
            self.read(position)
        except VideoReadError:
            return False
        return True

    def close(self) -> None:
        """End what was started for it."""
        end_decoder(self.decoder)


def evenly(num_video_frames: int, *, num_frames: int) -> np.ndarray:
    """(T,) indices spread over the whole video."""
    return frame_indices(
        "nlvl_uniform", num_video_frames=num_video_frames, num_frames=num_frames, rng=None
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``bench decode``."""
    parser.description = (
        "Time reading frames of videos with every decoder that is installed and from every storage"
        " given, by one process and by several, compared with plain decord on the first storage."
    )
    add = parser.add_argument
    add(
        "--videos",
        type=path_flag,
        nargs="+",
        required=True,
        help="folders, LMDBs or shards of the same videos (prepared ones, say), by the same ids",
    )
    add("--frames", type=positive, default=16, help="read of each video (default 16)")
    add("--size", type=positive, default=224, help="their side in pixels (default 224)")
    add(
        "--n_workers",
        "--workers",
        dest="workers",
        type=positive,
        nargs="+",
        default=[1, 2],
        help="numbers of processes to try (default 1 2)",
    )
    add("--clips", type=positive, default=100, help="videos read in a round (default 100)")
    add("--rounds", type=positive, default=3, help="each runs everything once (default 3)")


def run(flags: argparse.Namespace) -> None:
    """Measure and print a table.

    Raises:
        InputError: there are no videos to read.
    """
    storages = [open_videos_of_flag(path) for path in flags.videos]
    video_ids = shared_ids(storages, most=flags.clips)
    decoders = installed_decoders()
    readers = {
        (storage.root, name): ClipReader(storage, decoder, video_ids, flags.frames, flags.size)
        for storage in storages
        for name, decoder in decoders.items()
    }
    # All decoders must read the same clips.
    readers, positions, notes = readable_by_all(readers)
    speeds: dict[Job, list[float]] = {}
    # Take turns, so that changes of the machine's load affect all alike.
    turns = [(count, key) for count in flags.workers for key in readers]
    progress = tqdm(total=flags.rounds * len(turns), desc="measuring", file=sys.stderr)
    with progress, started_processes(max(flags.workers)) as processes:
        for _ in range(flags.rounds):
            for count, (root, name) in turns:
                seconds = processes.time(readers[root, name], positions, num_processes=count)
                speeds.setdefault(Job(root, name, count), []).append(len(positions) / seconds)
                progress.update()
    print("\n\n".join([decode_table(speeds), *notes]))


def installed_decoders() -> dict[str, Decoder]:
    """The decoders by what the table calls them, plain decord first where it is installed."""
    decoders: dict[str, Decoder] = {}
    if has_package("decord"):
        decoders[PLAIN_DECORD] = PlainDecord()
    for name in sorted(DECODERS):
        try:
            decoders[name] = make_decoder(name)
        except InputError:  # not installed
            continue
    decoders[GUARDED] = make_decoder("auto", seconds=DECODE_TIMEOUT, megabytes=DECODE_MEMORY)
    return decoders


def shared_ids(storages: Sequence[VideoStorage], *, most: int) -> list[str]:
    """The first ids of the first storage, which the others must have, too.

    Raises:
        InputError: there are none, or another storage lacks one.
    """
    first, *others = storages
    video_ids = first.video_ids()[:most]
    if not video_ids:
        raise InputError(f"--videos: {first.root} holds no videos")
    for storage in others:
        missing = storage.missing(video_ids)
        if missing:  # links that lead nowhere are named, and left out as unreadable
            named = set(storage.video_ids())
            missing = [video_id for video_id in missing if video_id not in named]
        if missing:
            raise InputError(
                f"--videos: {storage.root} lacks {pluralize(len(missing), 'video')} of "
                f"{first.root} "
                f"({missing[0]!r} first); name storages of the same videos"
            )
    return video_ids


Readers = dict[tuple[Path, str], ClipReader]


def readable_by_all(readers: Readers) -> tuple[Readers, list[int], list[str]]:
    """Leave out decoders that can read nothing, then videos that one of the others cannot.

    This reads everything once, each in a process of its own: some files crash some libraries.

    Returns:
        The readers left, the positions of the videos left, and sentences about the others.

    Raises:
        InputError: nothing is left.
    """
    can_read: dict[tuple[Path, str], set[int]] = {}
    for (root, name), reader in readers.items():
        decoder = reader.decoder
        if not isinstance(decoder, SandboxedDecoder):
            decoder = SandboxedDecoder(decoder, seconds=DECODE_TIMEOUT, megabytes=DECODE_MEMORY)
        guarded = replace(reader, decoder=decoder)
        positions = tqdm(range(len(reader.video_ids)), desc=f"reading once: {name}", leave=False)
        can_read[root, name] = {position for position in positions if guarded.can_read(position)}
        guarded.close()
    # Decoders that can read nothing are left out, then videos that one cannot read.
    left = {key: reader for key, reader in readers.items() if can_read[key]}
    if not left:
        raise InputError("--videos: no decoder can read any of the videos")
    shared = set.intersection(*(can_read[key] for key in left))
    notes = [
        f"Left out, as it can read none of the videos of {root}: {name}."
        for root, name in readers
        if (root, name) not in left
    ]
    num_videos = len(next(iter(readers.values())).video_ids)
    if not shared:
        raise InputError("--videos: no video can be read by all decoders")
    if len(shared) < num_videos:
        unread = pluralize(num_videos - len(shared), "video")
        notes.append(f"Left out, as a decoder cannot read them: {unread} of {num_videos:,}.")
    return left, sorted(shared), notes


def decode_table(speeds: dict[Job, list[float]]) -> str:
    """Markdown: a row for each job, compared with the first one of as many processes.

    Args:
        speeds: clips per second of each round.
    """
    base: dict[int, tuple[Job, float]] = {}
    rows: list[Sequence[str]] = []
    for job, rounds in speeds.items():
        low, middle, high = min(rounds), median(rounds), max(rounds)
        first = base.setdefault(job.num_processes, (job, middle))[1]
        speed = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        rows.append(
            (
                *(str(job.videos), job.decoder, str(job.num_processes)),
                *(speed, f"{middle / first:.2f}"),
            )
        )
    compared = next(iter(base.values()))[0]
    note = f"Multiples of {compared.decoder} on {compared.videos} with as many processes."
    return f"{markdown_table(HEADER, rows)}\n\n{note}"
