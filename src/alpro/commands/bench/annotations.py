"""Speed of reading rows, memory of the workers: ``bench annotations [--rows N] [--n_workers N]``.

Made-up captions are written in each format and read by a process of its own. Then workers read all
rows in a random order, once from a list of objects and once from `SharedRows`.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from math import gcd
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from alpro.commands.cli import positive
from alpro.commands.gallery.results import markdown_table
from alpro.datasets.shared_rows import pack_rows
from alpro.errors import RunError
from alpro.installation import has_package
from alpro.tasks.pretraining.annotations import CaptionedItem, read_captioned_videos

MEGABYTE = 1e6  # bytes
CAPTIONS_OF_A_VIDEO = 4
WORDS = (
    *("a man", "a woman", "some people", "two dogs", "a small child", "the band"),
    *("is running", "are talking", "plays the guitar", "is cooking", "are swimming", "dances"),
    *("in a park", "on a stage", "in the kitchen", "on the beach", "near a red car", "at night"),
)
LIST, PACKED = "a list of objects", "SharedRows"
READING_HEADER = (
    *("format", "file, MB", "seconds to load", "of these, packing", "peak memory, MB"),
    "kept, MB",
)
WORKERS_HEADER = (
    *("rows kept as", "workers started by", "private memory of a worker, MB"),
    *("beyond one without rows, MB", "microseconds to read a row"),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Time and memory of loading a file."""

    seconds: float
    packing_seconds: float
    peak: int
    """Bytes at most beyond those of the process before."""
    kept: int
    """Bytes of the packed rows."""


@dataclass(frozen=True, slots=True)
class Held:
    """Memory and time of a worker after reading all rows."""

    private: int
    """Bytes that no other process has in its memory."""
    seconds: float
    """Of a core's time that it took to read the rows."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of the benchmark."""
    parser.description = (
        "Time and memory to load made-up captions from each format; and the private memory of"
        " workers that have read all of them in a random order."
    )
    parser.add_argument("--rows", type=positive, default=1_000_000, help="default 1,000,000")
    parser.add_argument(
        "--n_workers", "--workers", dest="workers", type=positive, default=4, help="default 4"
    )


def run(flags: argparse.Namespace) -> None:
    """Measure, and print both tables.

    Raises:
        RunError: the system does not report the memory of a process.
    """
    memory_of_this_process("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), num_rows=flags.rows)
        loaded = {path: _in_new_process(load, path) for path in tqdm(paths, "loading", leave=False)}
        print(f"{loading_table(loaded)}\n")
    # Workers without rows are the base for those with rows.
    held: dict[tuple[str, str], list[Held]] = {}
    ways = [(kept, method) for kept in ("", LIST, PACKED) for method in ("fork", "spawn")]
    for kept, method in tqdm(ways, "workers", leave=False):
        held[kept, method] = _in_new_process(
            hold, kept, method, num_rows=flags.rows, num_workers=flags.workers
        )
    print(workers_table(held, num_rows=flags.rows))
    print(f"\n{flags.rows:,} rows; medians of {flags.workers} workers.")


def made_up_rows(num_rows: int) -> Iterator[CaptionedItem]:
    """Captions of six to nine words."""
    third = len(WORDS) // 3
    for number in range(num_rows):
        places = (number % third, third + number // 7 % third, 2 * third + number // 5 % third)
        text = " ".join(WORDS[place] for place in places) + f" {number}"
        yield CaptionedItem(f"video{number // CAPTIONS_OF_A_VIDEO}", (text,), "video")


def write_files(folder: Path, *, num_rows: int) -> list[Path]:
    """Write the rows in each format that can be written here."""
    jsonl, table, parquet = (folder / f"rows.{suffix}" for suffix in ("jsonl", "csv", "parquet"))
    with jsonl.open("w", encoding="utf-8") as lines, table.open("w", newline="") as cells:
        writer = csv.writer(cells)
        writer.writerow(("video_id", "text"))
        for row in made_up_rows(num_rows):
            lines.write(json.dumps({"video_id": row.video_id, "text": row.captions[0]}) + "\n")
            writer.writerow((row.video_id, row.captions[0]))
    if not has_package("pyarrow"):
        return [jsonl, table]
    _in_new_process(_write_parquet, table, parquet)
    return [jsonl, table, parquet]


def _write_parquet(table: Path, path: Path) -> None:
    from pyarrow import csv as tables
    from pyarrow import parquet

    parquet.write_table(tables.read_csv(table), path)


def load(path: Path) -> Loaded:
    """Load a file, in a process that has loaded none."""
    before = memory_of_this_process("VmRSS")
    started = time.perf_counter()
    items = read_captioned_videos(path).items
    seconds = time.perf_counter() - started
    peak = memory_of_this_process("VmHWM") - before
    rows = list(items)
    started = time.perf_counter()
    packed = pack_rows(rows, CaptionedItem)
    packing_seconds = time.perf_counter() - started
    return Loaded(seconds, packing_seconds, peak, packed.num_bytes)


def hold(kept: str, method: str, *, num_rows: int, num_workers: int) -> list[Held]:
    """Let workers read the rows that this process keeps; no rows if ``kept`` is empty."""
    # The parent keeps the rows; workers inherit or receive them.
    rows: Sequence[CaptionedItem] = []
    if kept == PACKED:
        rows = pack_rows(made_up_rows(num_rows), CaptionedItem)
    elif kept == LIST:
        rows = list(made_up_rows(num_rows))
    context: Any = multiprocessing.get_context(method)
    together = context.Barrier(num_workers)
    measured: Any = context.SimpleQueue()
    processes = [
        context.Process(target=_read_all, args=(rows, together, measured))
        for _ in range(num_workers)
    ]
    gc.freeze()  # as the loader does before it starts workers
    for process in processes:
        process.start()
    held = [measured.get() for _ in processes]
    for process in processes:
        process.join()
    return held


def _read_all(rows: Sequence[CaptionedItem], together: Barrier, measured: Any) -> None:
    started = time.process_time()  # there may be more workers than cores
    for position in shuffled(len(rows)):
        row = rows[position]
        assert row.video_id
        assert row.captions
    seconds = time.process_time() - started
    together.wait()  # while others are there still, what is shared does not count as private
    private = private_memory()
    together.wait()
    measured.put(Held(private, seconds))


def shuffled(size: int) -> Iterator[int]:
    """All positions, none near the one before; takes no memory, as a permutation would."""
    step = next(step for step in count(int(0.618 * size)) if gcd(step, size) == 1) if size else 0
    return (number * step % size for number in range(size))


def private_memory() -> int:
    """Bytes in memory that this process shares with no other."""
    text = _process_file("smaps_rollup")
    return sum(1024 * int(size) for size in re.findall(r"Private_(?:Clean|Dirty): +(\d+) kB", text))


def memory_of_this_process(name: str) -> int:
    """Bytes of memory: ``VmRSS`` now, ``VmHWM`` at most so far."""
    match = re.search(rf"{name}:\s+(\d+) kB", _process_file("status"))
    assert match is not None, name
    return 1024 * int(match[1])


def _process_file(name: str) -> str:
    path = Path("/proc/self") / name
    if not path.is_file():
        raise RunError(f"{path}, which reports memory, does not exist; this benchmark needs Linux")
    return path.read_text(encoding="utf-8")


def _in_new_process(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Result of a function called in a fresh process, whose memory holds nothing else."""
    context = multiprocessing.get_context("spawn")
    answers, questions = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(questions, work, arguments, named))
    process.start()
    questions.close()
    try:
        return answers.recv()
    except EOFError as error:
        raise RunError(f"the process that ran {work.__name__} died; see above") from error
    finally:
        process.join()


def _send(
    pipe: Any, work: Callable[..., Any], arguments: Sequence[Any], named: dict[str, Any]
) -> None:
    pipe.send(work(*arguments, **named))


def loading_table(loaded: dict[Path, Loaded]) -> str:
    """Markdown: one row for each file."""
    rows = [
        (
            path.suffix[1:],
            f"{path.stat().st_size / MEGABYTE:.0f}",
            *(f"{one.seconds:.1f}", f"{one.packing_seconds:.1f}"),
            *(f"{one.peak / MEGABYTE:.0f}", f"{one.kept / MEGABYTE:.0f}"),
        )
        for path, one in loaded.items()
    ]
    return markdown_table(READING_HEADER, rows)


def workers_table(held: dict[tuple[str, str], list[Held]], *, num_rows: int) -> str:
    """Markdown: one row for each way to keep rows and to start workers, "" keeping none."""
    rows = []
    for (kept, method), workers in held.items():
        private = median(one.private for one in workers)
        base = median(one.private for one in held["", method])
        seconds = median(one.seconds for one in workers)
        beyond = f"{(private - base) / MEGABYTE:.1f}" if kept else ""
        time_each = f"{1e6 * seconds / num_rows:.1f}" if kept else ""
        rows.append((kept or "no rows", method, f"{private / MEGABYTE:.1f}", beyond, time_each))
    return markdown_table(WORKERS_HEADER, rows)
