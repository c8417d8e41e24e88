"""Benchmarks: ``alpro bench {decode,loader,annotations,windows,search,moments,scaling} [flags]``.

Each compares what it measures side by side, in one run, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

from alpro.commands.bench import annotations as bench_annotations
from alpro.commands.bench import decode as bench_decode
from alpro.commands.bench import loader as bench_loader
from alpro.commands.bench import moments as bench_moments
from alpro.commands.bench import scaling as bench_scaling
from alpro.commands.bench import search as bench_search
from alpro.commands.bench import windows as bench_windows
from alpro.commands.cli import exit_code_of


class Benchmark(NamedTuple):
    """A subcommand."""

    summary: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None] | None
    """Measures and prints; None where further flags are keys of a config."""


BENCHMARKS = {
    "decode": Benchmark(
        "frames from files, by each decoder and from each storage",
        bench_decode.add_flags,
        bench_decode.run,
    ),
    "loader": Benchmark(
        "the whole path from file to batch",
        bench_loader.add_flags,
        bench_loader.run,
    ),
    "annotations": Benchmark(
        "reading rows, and memory of the workers",
        bench_annotations.add_flags,
        bench_annotations.run,
    ),
    "windows": Benchmark(
        "reading and encoding the windows of videos", bench_windows.add_flags, bench_windows.run
    ),
    "search": Benchmark(
        "search in an index of many windows", bench_search.add_flags, bench_search.run
    ),
    "moments": Benchmark(
        "accuracy of searches for moments", bench_moments.add_flags, bench_moments.run
    ),
    "scaling": Benchmark(
        "updates by one process and by several, with each engine", bench_scaling.add_flags, None
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="alpro bench",
        description="Measure how fast this machine reads videos and trains.",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(required=True, metavar="BENCHMARK", dest="benchmark")
    for name, benchmark in BENCHMARKS.items():
        benchmark.add_flags(subparsers.add_parser(name, help=benchmark.summary, allow_abbrev=False))
    flags, keys = parser.parse_known_args(arguments)
    run = BENCHMARKS[flags.benchmark].run
    if run is None:
        return exit_code_of(lambda: bench_scaling.run(flags, keys))
    if keys:
        parser.error(f"unrecognized arguments: {' '.join(keys)}")
    return exit_code_of(lambda: run(flags))
