"""Prepare videos for training: ``alpro prepare-videos --videos DIR --output DIR``.

Transcodes every video so that reading a few of its frames is cheap: smaller pictures, fewer frames
if asked for, key frames at short distances, no sound, upright. The prepared videos keep their ids
and are written into a folder, an LMDB or tar shards. An interrupted command can be resumed.
Failures are listed in ``failed.jsonl`` of the output folder, and the command exits with 1.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from alpro.commands.cli import (
    MAX_WORKERS,
    DefaultsShown,
    at_most,
    exit_code_of,
    not_negative,
    open_videos_of_flag,
    path_flag,
    positive,
)
from alpro.commands.transcode.settings import PRESETS, Preparation
from alpro.commands.video_writers import KINDS
from alpro.errors import RunError, listed, pluralize, printable
from alpro.training.writable import check_output_folder

if TYPE_CHECKING:
    from alpro.commands.transcode.collection import Limits, Summary
    from alpro.commands.transcode.speed import Speed

SECONDS = 600
"""For a video; one of a minute takes a few, a film of two hours more than this."""
MEGABYTES = 4096
SPEED_SAMPLE = 8
LARGEST_CRF = 51
_MEGABYTE = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: prepare_videos(flags), can_resume=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro prepare-videos",
        description="Transcode videos so that training reads them fast.",
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    add = parser.add_argument
    given = Preparation()
    add(
        "--videos",
        type=path_flag,
        required=True,
        default=argparse.SUPPRESS,
        help="folder, LMDB or tar shards of the originals",
    )
    add(
        "--output",
        type=path_flag,
        required=True,
        default=argparse.SUPPRESS,
        help="folder of the prepared videos",
    )
    add("--kind", choices=KINDS, default="folder", help="kind of storage")
    add(
        "--shorter_side",
        type=not_negative,
        default=given.shorter_side,
        help="pixels; smaller videos keep their size; 0: all keep it",
    )
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument("--fps", type=_rate, help="frames kept of a second, such as 2 or 1/3")
    frames.add_argument(
        "--frame_share",
        type=_share,
        help="share of the frames that is kept, such as 0.1; without both flags: all",
    )
    add(
        "--key_frame_interval",
        type=positive,
        default=given.key_frame_interval,
        help="frames; longer: smaller files, slower to read",
    )
    add(
        "--b_frames", type=not_negative, default=given.b_frames, help="between two reference frames"
    )
    crf_help = "0 is best and largest, 51 worst"
    add("--crf", type=at_most(LARGEST_CRF), default=given.crf, help=crf_help)
    add("--preset", choices=PRESETS, default=given.preset, help="of x264; slower: smaller files")
    add(
        "--n_workers",
        "--workers",
        dest="workers",
        type=at_most(MAX_WORKERS),
        default=0,
        help="processes; 0: one per core",
    )
    add("--seconds", type=not_negative, default=SECONDS, help="time limit for a video; 0: none")
    add(
        "--megabytes",
        type=not_negative,
        default=MEGABYTES,
        help="memory limit of a worker; 0: none",
    )
    add("--retry_failed", action="store_true", help="try failed videos again")
    add(
        "--speed_sample",
        type=not_negative,
        default=SPEED_SAMPLE,
        help="videos whose decoding speed is measured at the end",
    )
    return parser


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if rate <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return rate


def _share(text: str) -> Fraction:
    share = _rate(text)
    if share > 1:
        raise argparse.ArgumentTypeError(f"{text} is above 1, which keeps all frames")
    return share


def prepare_videos(flags: argparse.Namespace) -> None:
    """Prepare the videos that flags name, and print a summary.

    Raises:
        InputError: the folders are unsuitable.
        RunError: some videos could not be prepared, or the disk is full.
    """
    from alpro.commands.transcode.collection import FAILED, Limits, prepare_collection

    preparation = Preparation(
        shorter_side=flags.shorter_side,
        fps=flags.fps,
        frame_share=flags.frame_share,
        key_frame_interval=flags.key_frame_interval,
        b_frames=flags.b_frames,
        crf=flags.crf,
        preset=flags.preset,
    )
    limits = Limits(flags.workers or os.cpu_count() or 1, flags.seconds, flags.megabytes)
    check_output_folder(flags.output, named_by="--output")
    summary = prepare_collection(
        open_videos_of_flag(flags.videos),
        flags.output,
        kind=flags.kind,
        preparation=preparation,
        limits=limits,
        retry_failed=flags.retry_failed,
    )
    print(f"{flags.output}: {_summary_text(summary)}")
    # Measure the gain on a sample, after the work is done.
    speed = _speed(flags, summary, preparation=preparation, limits=limits)
    if speed is not None:
        print(_speed_text(speed))
    if summary.failed:
        raise RunError(
            f"{len(summary.failed):,} of {pluralize(summary.num_videos, 'video')} could not be "
            f"prepared; {flags.output / FAILED} has the reasons (--retry_failed tries again)"
        )


def _summary_text(summary: Summary) -> str:
    before, after = summary.total("bytes_before"), summary.total("num_bytes")
    ratio = f", {after / before:.2f} of that" if before else ""
    lines = [
        f"{len(summary.prepared):,} of {pluralize(summary.num_videos, 'video')} prepared",
        f"size {before / _MEGABYTE:,.1f} MB before, {after / _MEGABYTE:,.1f} MB after{ratio}",
        f"{summary.total('frames'):,} of {summary.total('frames_before'):,} frames kept",
    ]
    damaged = [name for name, note in summary.prepared.items() if note.get("broken_packets")]
    if damaged:
        message = f"{pluralize(len(damaged), 'original')} damaged, with missing frames:"
        lines.append(f"{message} {_some(damaged)}")
    if summary.stale:
        message = (
            f"{pluralize(len(summary.stale), 'original')} changed since: {_some(summary.stale)}"
        )
        lines.append(f"{message}; shards cannot replace videos, so prepare into another folder")
    return "\n  ".join(lines)


def _some(names: Sequence[str]) -> str:
    return printable(listed(names, most=3))


def _speed(
    flags: argparse.Namespace, summary: Summary, *, preparation: Preparation, limits: Limits
) -> Speed | None:
    from alpro.commands.transcode.speed import measure_speed
    from alpro.datasets.storage import open_videos

    # Undamaged videos, evenly spaced over the collection.
    whole = [name for name, note in summary.prepared.items() if not note.get("broken_packets")]
    count = min(flags.speed_sample, len(whole))
    sample = [whole[number * len(whole) // count] for number in range(count)]
    if not sample:
        return None
    originals, prepared = open_videos(flags.videos), open_videos(flags.output)
    return measure_speed(originals, prepared, sample, preparation=preparation, limits=limits)


def _speed_text(speed: Speed) -> str:
    from alpro.commands.transcode.speed import FRAME_SIZE, NUM_FRAMES

    before, after = speed.before(), speed.after()
    difference = speed.difference()
    message = "" if difference is None else f"; they differ by {difference:.2f} grey levels"
    return (
        f"  reading {NUM_FRAMES} frames at {FRAME_SIZE}x{FRAME_SIZE} of "
        f"{pluralize(len(speed.readings), 'video')}, one thread: {before:.1f} clips/s before, "
        f"{after:.1f} after, {after / before:.2f} times as fast{message}"
    )
