"""Speed of search in many windows: ``bench search [--windows N] [--embed_dim E]``.

An index of made-up vectors is written. Queries are searched exactly, and through usearch if it is
installed, with its recall against the exact search. Vectors are of two kinds: in clusters, as those
of real videos are, and independent ones, which are the worst case for an approximate search.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from alpro.commands.cli import positive, progress
from alpro.commands.gallery.results import markdown_table
from alpro.installation import has_package

if TYPE_CHECKING:
    from alpro.search.index import Index

MEGABYTE = 1e6
WINDOWS_PER_FILE = 1200  # an hour at a stride of 3 s
TOP = 20
CLUSTERS = 2000
NOISE = 0.6  # spread of a cluster's vectors, of which the centre has length 1
HEADER = (
    *("vectors", "search", "index, MB", "to build, s", "p50, ms", "p95, ms", f"recall@{TOP}"),
    "peak memory, MB",
)


class Measured(NamedTuple):
    """A row of the table."""

    vectors: str
    search: str
    megabytes: float
    build: float
    milliseconds: np.ndarray
    recall: float

    def cells(self) -> list[str]:
        """Return the cells of the row."""
        p50, p95 = np.percentile(self.milliseconds, (50, 95))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
        return [
            *(self.vectors, self.search, f"{self.megabytes:.0f}", f"{self.build:.1f}"),
            *(f"{p50:.0f}", f"{p95:.0f}", f"{self.recall:.3f}", f"{peak:.0f}"),
        ]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's flags."""
    parser.add_argument("--windows", type=positive, default=1_000_000, help="number of windows")
    parser.add_argument("--embed_dim", type=positive, default=256, help="width of the vectors")
    parser.add_argument("--queries", type=positive, default=100, help="number of queries")
    parser.add_argument("--no_usearch", action="store_true", help="search exactly only")


def run(flags: argparse.Namespace) -> None:
    """Measure and print."""
    rows = []
    for kind, noise in (("in clusters", NOISE), ("independent", 0.0)):
        with tempfile.TemporaryDirectory() as folder:
            some = _measure(Path(folder), kind, noise, flags)
            rows += [one.cells() for one in some]
    print(markdown_table(HEADER, rows))


def _measure(folder: Path, kind: str, noise: float, flags: argparse.Namespace) -> list[Measured]:
    from alpro.search.index import Index
    from alpro.search.nearest import build_nearest

    begin = time.perf_counter()
    queries = _write(folder, noise, flags)
    seconds = time.perf_counter() - begin
    with Index(folder) as index:
        exact, best = _search(index, queries)
        megabytes = _megabytes(folder)
        measured = [Measured(kind, "exact", megabytes, seconds, exact, 1.0)]
        if has_package("usearch") and not flags.no_usearch:
            begin = time.perf_counter()
            build_nearest(index)
            seconds = time.perf_counter() - begin
            times, others = _search(index, queries)
            recall = np.mean([len(a & b) / TOP for a, b in zip(best, others, strict=True)])
            megabytes = _megabytes(folder)
            measured.append(Measured(kind, "usearch", megabytes, seconds, times, float(recall)))
    return measured


def _write(folder: Path, noise: float, flags: argparse.Namespace) -> np.ndarray:
    """Write an index; returns (Q, E) vectors of queries, like those of windows."""
    from alpro.search.index import FileState, IndexSettings
    from alpro.search.index_writer import IndexWriter

    rng = np.random.default_rng(0)
    centres = _unit(rng.standard_normal((CLUSTERS, flags.embed_dim), np.float32))

    def draw(count: int) -> np.ndarray:
        spread = rng.standard_normal((count, flags.embed_dim), np.float32)
        if not noise:
            return _unit(spread)
        return _unit(centres[rng.integers(CLUSTERS, size=count)] + noise * _unit(spread))

    settings = IndexSettings(
        model="none", fingerprint="none", embed_dim=flags.embed_dim, window=6.0, stride=3.0
    )
    with IndexWriter(folder, settings) as writer:
        starts = range(0, flags.windows, WINDOWS_PER_FILE)
        for first in progress(starts, len(starts), "writing", "file"):
            count = min(WINDOWS_PER_FILE, flags.windows - first)
            file = writer.begin(Path(f"/videos/{first}.mp4"), FileState(first, first), b"")
            writer.add(file, draw(count), duration=3.0 * (count + 1))
            writer.finish(file)
    return draw(flags.queries)


def _search(index: Index, queries: np.ndarray) -> tuple[np.ndarray, list[set[tuple[int, float]]]]:
    """Milliseconds of each query after a first one, and its best moments."""
    from alpro.search.searcher import Query, Searcher

    def no_model() -> NoReturn:
        raise AssertionError("vectors are given")

    searcher = Searcher(index, no_model)
    times, best = [], []
    for number, vector in enumerate((queries[0], *queries)):
        begin = time.perf_counter()
        moments = searcher.search_vector(vector, Query(top=TOP)).moments
        if number:
            times.append(1000 * (time.perf_counter() - begin))
            best.append({(one.file.id, one.peak[0]) for one in moments})
    return np.array(times), best


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / MEGABYTE
