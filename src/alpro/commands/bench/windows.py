"""Cost of reading and encoding windows: ``bench windows VIDEO ... --model MODEL``.

Each video is read by windows in one pass, and its windows are encoded. CPU seconds are those of the
decoding process and of this one, per hour of video.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpro.commands.cli import any_path_flag, progress
from alpro.commands.gallery.results import markdown_table
from alpro.commands.index import clock

if TYPE_CHECKING:
    from alpro.inference.model import Model

HOUR = 3600.0
KILOBYTES_PER_MEGABYTE = 1024
HEADER = (
    *("video", "length", "windows", "windows/s", "CPU s per hour: decoding", "encoding"),
    "peak memory of decoding, MB",
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's flags."""
    parser.add_argument("videos", nargs="+", type=any_path_flag, help="video files")
    parser.add_argument("--model", type=any_path_flag, required=True, help="model that embeds")
    parser.add_argument("--window", type=float, default=6.0, help="seconds")
    parser.add_argument("--stride", type=float, default=3.0, help="seconds")


def run(flags: argparse.Namespace) -> None:
    """Measure and print."""
    from alpro.inference.model import load

    model = load(flags.model, device="cpu")
    model.encode_frames(_zeros(model))  # the first pass prepares kernels
    rows = []
    for video in progress(flags.videos, len(flags.videos), "videos", "video"):
        assert isinstance(video, Path)
        rows.append([video.name, *_measure(video, model, flags)])
    print(markdown_table(HEADER, rows))


def _zeros(model: Model) -> np.ndarray:
    side = model.preprocessing.size
    return np.zeros((1, model.num_frames, 3, side, side), np.uint8)


def _measure(video: Path, model: Model, flags: argparse.Namespace) -> list[str]:
    from alpro.datasets.decoding.windows import WindowReader

    reader, count, length, encoding = WindowReader(), 0, 0.0, 0.0
    plan = model.window_plan(window=flags.window, stride=flags.stride)
    try:
        process = reader.process.call(os.getpid)
        started, _ = _usage_of(process)
        begin = time.perf_counter()
        for window in reader.read(video, plan=plan):
            cpu = time.process_time()
            model.encode_frames(window.frames[None])
            encoding += time.process_time() - cpu
            count, length = count + 1, window.end
        seconds = time.perf_counter() - begin
        ended, peak = _usage_of(process)
    finally:
        reader.close()
    per_hour = HOUR / length
    return [
        *(clock(length), f"{count:,}", f"{count / seconds:.1f}"),
        *(f"{(ended - started) * per_hour:.0f}", f"{encoding * per_hour:.0f}", f"{peak:.0f}"),
    ]


def _usage_of(process: int) -> tuple[float, float]:
    """CPU seconds and peak megabytes of a process."""
    folder = Path("/proc", str(process))
    times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
    lines = (folder / "status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    cpu = sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return cpu, int(peak) / KILOBYTES_PER_MEGABYTE
