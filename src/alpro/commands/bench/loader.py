"""The whole path from file to batch: ``bench loader --videos DIR [DIR ...]``.

Beside it, in the same run and by as many processes, decoding alone: frames that are read and
dropped. What the loader loses against that is the price of collating, of captions' tokens, and of
sending batches to the process that trains.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import numpy as np
import torch

from alpro.commands.bench.processes import ReadingProcesses, end_decoder, started_processes
from alpro.commands.cli import open_videos_of_flag, path_flag, positive
from alpro.commands.gallery.results import markdown_table
from alpro.configs.shared_options import DECODE_MEMORY, DECODE_TIMEOUT
from alpro.datasets.annotations import CaptionRow
from alpro.datasets.dataloader import make_loader
from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.tokenization import load_tokenizer
from alpro.datasets.transforms.augmentation import video_augmentation
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import FrameReader, TrainingVideos
from alpro.errors import InputError, pluralize
from alpro.tasks.retrieval.objective import RetrievalCollate

CAPTION = "a caption of twelve words, which is about what people write"
MAX_TEXT_LENGTH = 40  # word pieces
VOCABULARY_SIZE = 30522  # of bert-base-uncased
BATCHES_AROUND = 2  # for each worker, before the clock starts and after it stops
DECODING, LOADER, AUGMENTED = "decoding alone", "loader", "loader with RandAugment"
HEADER = (
    *("videos", "workers", "path", "clips a second (lowest to highest round)"),
    "as a share of decoding alone",
)


@dataclass(frozen=True, slots=True)
class Way:
    """One measurement: a path, from some videos, with some workers."""

    videos: Path
    num_workers: int
    path: str


@dataclass(frozen=True, slots=True)
class ClipReader:
    """Reads clips and drops them; can be sent to a process."""

    reader: FrameReader
    video_ids: Sequence[str]

    def read(self, position: int) -> None:
        """Read (T, 3, S, S) frames of a video."""
        self.reader.read(self.video_ids[position], rng=np.random.default_rng(position))

    def close(self) -> None:
        """End what was started for it."""
        end_decoder(self.reader.decoder)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the benchmark."""
    parser.description = (
        "Clips a second in batches as training gets them, against decoding alone by as many"
        " processes."
    )
    parser.add_argument(
        "--videos",
        type=path_flag,
        nargs="+",
        required=True,
        metavar="DIR",
        help="folders, LMDBs or tar shards",
    )
    parser.add_argument("--frames", type=positive, default=16, help="of a clip (default 16)")
    parser.add_argument("--size", type=positive, default=224, help="of frames (default 224)")
    parser.add_argument("--decoder", default="auto", help="a video_decoder (default auto)")
    parser.add_argument("--batch_size", type=positive, default=8, help="clips (default 8)")
    parser.add_argument(
        "--n_workers",
        "--workers",
        dest="workers",
        type=positive,
        nargs="+",
        help="numbers to try (default: one per core)",
    )
    parser.add_argument("--clips", type=positive, default=208, help="in a round (default 208)")
    parser.add_argument(
        "--rounds", type=positive, default=3, help="each takes all paths, in turn (default 3)"
    )
    parser.add_argument(
        "--tokenizer_dir", type=path_flag, default=Path("ext/bert-base-uncased"), metavar="DIR",
        help="vocabulary (default %(default)s)",
    )  # fmt: skip


def run(flags: argparse.Namespace) -> None:
    """Measure all ways in turn and print the table."""
    tokenizer = load_tokenizer(flags.tokenizer_dir, vocab_size=VOCABULARY_SIZE)
    collate = RetrievalCollate(tokenizer, MAX_TEXT_LENGTH)
    decoder = make_decoder(flags.decoder, seconds=DECODE_TIMEOUT, megabytes=DECODE_MEMORY)
    readers = {
        path: FrameReader(
            open_videos_of_flag(path),
            decoder,
            flags.frames,
            "segment",
            PixelPreprocessing(size=flags.size),
        )
        for path in flags.videos
    }
    names_of = {
        path: list(islice(cycle(readable_ids(reader)), flags.clips))
        for path, reader in readers.items()
    }
    counts = flags.workers or [os.cpu_count() or 1]
    # Every combination of storage, number of workers and path is measured in turn.
    ways = [
        Way(videos, num_workers, path)
        for videos in flags.videos
        for num_workers in counts
        for path in (DECODING, LOADER, AUGMENTED)
    ]
    speeds: dict[Way, list[float]] = {}
    with started_processes(max(counts)) as processes:
        for number in range(flags.rounds):
            for way in ways:
                message = f"{way.videos}, {pluralize(way.num_workers, 'worker')}, {way.path}"
                print(f"round {number + 1}: {message}", file=sys.stderr)
                clips = ClipReader(readers[way.videos], names_of[way.videos])
                speed = _speed(way, clips, processes, collate, batch_size=flags.batch_size)
                speeds.setdefault(way, []).append(speed)
    print(loader_table(speeds))


def _speed(
    way: Way,
    clips: ClipReader,
    processes: ReadingProcesses,
    collate: RetrievalCollate,
    *,
    batch_size: int,
) -> float:
    """Clips a second in one round."""
    if way.path == DECODING:
        positions = range(len(clips.video_ids))
        return len(positions) / processes.time(clips, positions, num_processes=way.num_workers)
    rows = [CaptionRow(CAPTION, video_id) for video_id in clips.video_ids]
    augment = video_augmentation() if way.path == AUGMENTED else None
    dataset = TrainingVideos(rows, clips.reader, seed=0, augment=augment)
    return loading_speed(dataset, collate, batch_size=batch_size, num_workers=way.num_workers)


def loader_table(speeds: dict[Way, list[float]]) -> str:
    """Markdown: one row for each way; speeds are clips a second, one for each round."""
    rows = []
    for way, rounds in speeds.items():
        base = median(speeds[Way(way.videos, way.num_workers, DECODING)])
        low, middle, high = min(rounds), median(rounds), max(rounds)
        speed = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        row = (str(way.videos), str(way.num_workers), way.path, speed, f"{middle / base:.2f}")
        rows.append(row)
    return markdown_table(HEADER, rows)


def readable_ids(reader: FrameReader) -> list[str]:
    """The videos that give frames; reading them all also brings them into memory.

    Raises:
        InputError: if there are none.
    """
    video_ids = []
    for video_id in reader.videos.video_ids():
        with suppress(VideoReadError):
            reader.read(video_id, rng=np.random.default_rng(0))
            video_ids.append(video_id)
    if not video_ids:
        raise InputError(f"--videos {reader.root}: none of its videos can be read")
    return video_ids


def loading_speed(
    dataset: TrainingVideos[CaptionRow],
    collate: RetrievalCollate,
    *,
    batch_size: int,
    num_workers: int,
) -> float:
    """Clips a second that arrive in batches, while all workers are busy.

    The clock runs from one batch to another; before the first and after the last there are more.
    """
    # Batches before and after keep all workers busy while the clock runs.
    num_counted = -(-len(dataset) // batch_size)
    num_before = num_after = BATCHES_AROUND * num_workers
    num_batches = num_before + num_counted + num_after
    keys = [(0, number % len(dataset)) for number in range(num_batches * batch_size)]
    batches = iter(
        make_loader(
            dataset,
            batches=[keys[at : at + batch_size] for at in range(0, len(keys), batch_size)],
            collate=collate,
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
        )
    )
    for _ in range(num_before):
        next(batches)
    started = time.perf_counter()
    num_clips = sum(len(next(batches).video_ids) for _ in range(num_counted))
    seconds = time.perf_counter() - started
    for _ in batches:  # the rest, so that the workers end in an orderly way
        pass
    return num_clips / seconds
