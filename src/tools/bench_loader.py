"""The whole path from a file into a batch: ``bench loader --videos DIR [DIR ...]``.

Beside it, in the same run and by as many processes, decoding alone: frames that are read and
dropped. What the loader loses against that is the price of collating, of captions' tokens, and of
sending batches to the process that trains.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import numpy as np
import torch

from src.datasets.annotations import CaptionRow
from src.datasets.augmentation import video_augmentation
from src.datasets.decoding import VideoReadError, make_decoder
from src.datasets.loading import make_loader
from src.datasets.retrieval import RetrievalCollate
from src.datasets.storage import open_videos
from src.datasets.tokenization import load_tokenizer
from src.datasets.videos import FrameReader, TrainingVideos
from src.errors import InputError
from src.tools.command import positive
from src.tools.results import markdown_table

CAPTION = "a caption of twelve words, which is about what people write"
MAX_TEXT_LENGTH = 40  # word pieces
VOCABULARY_SIZE = 30522  # of bert-base-uncased
WARM_UP_BATCHES = 2  # for each worker, before the clock starts
DECODE_TIMEOUT_SECONDS, DECODE_MEMORY_MEGABYTES = 60, 2048  # the defaults of configs
DECODING, LOADER, AUGMENTED = "decoding alone", "loader", "loader with RandAugment"
HEADER = (
    *("videos", "workers", "path", "clips a second (lowest to highest round)"),
    "as a share of decoding alone",
)


@dataclass(frozen=True, slots=True)
class Way:
    """What is measured: a path, from some videos, with some workers."""

    videos: Path
    num_workers: int
    path: str


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the benchmark."""
    parser.description = (
        "Clips a second in batches as training gets them, against decoding alone by as many"
        " processes."
    )
    parser.add_argument(
        "--videos",
        type=Path,
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
        "--workers", type=positive, nargs="+", help="numbers to try (default: one per core)"
    )
    parser.add_argument("--clips", type=positive, default=208, help="in a round (default 208)")
    parser.add_argument(
        "--rounds", type=positive, default=3, help="each takes all paths, in turn (default 3)"
    )
    parser.add_argument(
        "--tokenizer_dir", type=Path, default=Path("ext/bert-base-uncased"), metavar="DIR",
        help="vocabulary (default %(default)s)",
    )  # fmt: skip


def run(flags: argparse.Namespace) -> None:
    """Measure all ways in turn and print the table."""
    tokenizer = load_tokenizer(flags.tokenizer_dir, vocab_size=VOCABULARY_SIZE)
    collate = RetrievalCollate(tokenizer, MAX_TEXT_LENGTH)
    decoder = make_decoder(
        flags.decoder, seconds=DECODE_TIMEOUT_SECONDS, megabytes=DECODE_MEMORY_MEGABYTES
    )
    readers = {
        path: FrameReader(open_videos(path), decoder, flags.frames, "segment", flags.size)
        for path in flags.videos
    }
    ids = {path: readable_ids(reader) for path, reader in readers.items()}
    ways = [
        Way(videos, num_workers, path)
        for videos in flags.videos
        for num_workers in flags.workers or [os.cpu_count() or 1]
        for path in (DECODING, LOADER, AUGMENTED)
    ]
    speeds: dict[Way, list[float]] = {}
    for number in range(flags.rounds):
        for way in ways:
            told = f"{way.videos}, {way.num_workers} workers, {way.path}"
            print(f"round {number + 1}: {told}", file=sys.stderr)
            names = list(islice(cycle(ids[way.videos]), flags.clips))
            speed = _speed(way, readers[way.videos], names, collate, batch_size=flags.batch_size)
            speeds.setdefault(way, []).append(speed)
    print(loader_table(speeds))


def _speed(
    way: Way,
    reader: FrameReader,
    names: list[str],
    collate: RetrievalCollate,
    *,
    batch_size: int,
) -> float:
    """Clips a second in one round."""
    if way.path == DECODING:
        return decoding_speed(reader, names, num_workers=way.num_workers)
    augment = video_augmentation() if way.path == AUGMENTED else None
    rows = [CaptionRow(CAPTION, name) for name in names]
    dataset = TrainingVideos(rows, reader, seed=0, augment=augment)
    return loading_speed(dataset, collate, batch_size=batch_size, num_workers=way.num_workers)


def loader_table(speeds: dict[Way, list[float]]) -> str:
    """Markdown: one row for each way; speeds are clips a second, one for each round."""
    rows = []
    for way, found in speeds.items():
        base = median(speeds[Way(way.videos, way.num_workers, DECODING)])
        low, middle, high = min(found), median(found), max(found)
        speed = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        row = (str(way.videos), str(way.num_workers), way.path, speed, f"{middle / base:.2f}")
        rows.append(row)
    return markdown_table(HEADER, rows)


def readable_ids(reader: FrameReader) -> list[str]:
    """The videos that give frames; reading them all also brings them into memory.

    Raises:
        InputError: if there are none.
    """
    found = []
    for video_id in reader.videos.video_ids():
        with suppress(VideoReadError):
            reader.read(video_id, rng=np.random.default_rng(0))
            found.append(video_id)
    if not found:
        raise InputError(f"--videos {reader.root}: no video in it can be read")
    return found


def decoding_speed(reader: FrameReader, video_ids: Sequence[str], *, num_workers: int) -> float:
    """Clips a second that processes read and drop."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(num_workers + 1)
    shares = [video_ids[number::num_workers] for number in range(num_workers)]
    processes = [
        context.Process(target=_read_and_drop, args=(reader, share, start)) for share in shares
    ]
    for process in processes:
        process.start()
    start.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return len(video_ids) / (time.perf_counter() - started)


def _read_and_drop(reader: FrameReader, video_ids: Sequence[str], start: Barrier) -> None:
    rng = np.random.default_rng(0)
    reader.read(video_ids[0], rng=rng)  # libraries are loaded, an isolated process is started
    start.wait()
    for video_id in video_ids:
        reader.read(video_id, rng=rng)


def loading_speed(
    dataset: TrainingVideos[CaptionRow],
    collate: RetrievalCollate,
    *,
    batch_size: int,
    num_workers: int,
) -> float:
    """Clips a second that arrive in batches, from when workers are busy on."""
    num_batches = -(-len(dataset) // batch_size)
    num_first = WARM_UP_BATCHES * num_workers
    keys = [(0, number % len(dataset)) for number in range((num_first + num_batches) * batch_size)]
    loader = make_loader(
        dataset,
        batches=[keys[at : at + batch_size] for at in range(0, len(keys), batch_size)],
        collate=collate,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )
    batches = iter(loader)
    for _ in range(num_first):
        next(batches)
    started = time.perf_counter()
    num_clips = sum(len(batch.video_ids) for batch in batches)
    return num_clips / (time.perf_counter() - started)
