"""Index one's own videos for search: ``alpro index DIR... --model MODEL``.

New, changed, moved and deleted files are noticed when the command is given again; one that was
interrupted, or killed, goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alpro.commands.cli import (
    MAX_WORKERS,
    DefaultsShown,
    any_path_flag,
    at_most,
    exit_code_of,
    positive,
    progress,
)
from alpro.errors import InputError, pluralize, printable
from alpro.launchers import LAUNCHERS, number_in
from alpro.search.nearest import DEFAULT_THRESHOLD

if TYPE_CHECKING:
    from alpro.search.indexing import Indexed
    from alpro.search.updating import Updated

DEFAULT_INDEX = "alpro-index"
_MAX_LISTED = 20  # unreadable files that are printed
_DAY = 86_400


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _run(flags), can_resume=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro index",
        description="Index videos for search by text, picture or clip. Give the command again to "
        "take in what has changed since.",
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("videos", nargs="*", type=any_path_flag, help="folders of videos, or videos")
    add(
        "--index",
        type=any_path_flag,
        default=Path(DEFAULT_INDEX),
        help="folder of the index",
    )
    add(
        "--model",
        type=any_path_flag,
        help="model folder, or output folder of a run; by default that of the index",
    )
    add("--window", type=_seconds, help="length of the windows in seconds; of a new index: 6")
    add("--stride", type=_seconds, help="seconds from window to window; of a new index: 3")
    add("--exclude", nargs="+", default=[], metavar="GLOB", help="paths to pass over: '*/raw/*'")
    add("--retry", action="store_true", help="try files again that could not be read")
    add(
        "--n_workers",
        type=at_most(MAX_WORKERS),
        default=0,
        help="files that are decoded at once; 0: one per core, but one",
    )
    add("--part", type=_part, metavar="I/N", help="index the I-th of N shares; others do the rest")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to encode")
    add(
        "--usearch_threshold",
        type=positive,
        default=DEFAULT_THRESHOLD,
        help="windows from which on searches are approximate, by usearch",
    )
    add("--merge", nargs="+", type=any_path_flag, help="add other indexes to this one, and end")
    add("--status", action="store_true", help="say what is in the index, and end")
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= _DAY:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and a day of seconds")
    return seconds


def _part(text: str) -> tuple[int, int]:
    number, _, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 0 < int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share such as 1/4")
    return int(number) - 1, int(total)


def _run(flags: argparse.Namespace) -> None:
    if flags.status:
        _print_status(flags.index)
    elif flags.merge:
        _merge(flags.index, flags.merge)
    elif not flags.videos:
        raise InputError("no folder of videos: `alpro index VIDEOS --model MODEL`")
    else:
        _update(flags)


def _update(flags: argparse.Namespace) -> None:
    import alpro
    from alpro.search.index import DATABASE, Index
    from alpro.search.updating import settings_of, update_index

    # The model of an index that is there need not be named.
    name = flags.model
    if name is None:
        if not (flags.index / DATABASE).is_file():
            raise InputError("--model: name a model folder, or the output folder of a run")
        with Index(flags.index) as index:
            name = Path(index.settings.model)
    model = alpro.load(name, device=flags.device)
    settings = settings_of(
        flags.index,
        model,
        name=os.path.abspath(name),
        window=flags.window,
        stride=flags.stride,
    )
    begin, bar = time.monotonic(), progress(None, 0, "indexing", "s", unit_scale=True)

    def advance(done: Indexed, total: float) -> None:
        bar.total = max(total, done.seconds)
        bar.set_postfix(files=done.num_files, unreadable=len(done.unreadable), refresh=False)
        bar.update(done.seconds - bar.n)

    with bar:
        updated = update_index(
            flags.index,
            flags.videos,
            model,
            settings,
            exclude=flags.exclude,
            retry=flags.retry,
            part=flags.part or _part_of_launcher(),
            usearch_threshold=flags.usearch_threshold,
            num_workers=flags.n_workers or max(1, (os.cpu_count() or 1) - 1),
            advance=advance,
        )
    _print_update(updated, seconds=time.monotonic() - begin)
    print(f'Search: alpro search "..." --index {printable(str(flags.index))}')


def _part_of_launcher() -> tuple[int, int] | None:
    """Share of this process of those that a launcher has started."""
    for launcher in LAUNCHERS:
        rank = number_in(launcher.rank)
        if launcher.num_processes > 1 and rank is not None:
            return rank, launcher.num_processes
    return None


def _print_update(updated: Updated, *, seconds: float) -> None:
    done = updated.indexed
    counts = {
        "moved": updated.num_moved,
        "deleted": updated.num_deleted,
        "unchanged": updated.num_unchanged,
    }
    others = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    print(
        f"{pluralize(done.num_files, 'file')} indexed{others}: "
        f"{pluralize(done.num_windows, 'window')} of {clock(done.seconds)} of video in "
        f"{clock(seconds)}"
    )
    trouble = {**updated.collection.unreadable, **done.unreadable}
    _print_unreadable({printable(str(path)): reason for path, reason in trouble.items()})


def _print_unreadable(reasons: dict[str, str]) -> None:
    if reasons:
        print(f"{pluralize(len(reasons), 'file')} cannot be read:")
    for number, (name, reason) in enumerate(reasons.items()):
        if number == _MAX_LISTED:
            print(f"  and {len(reasons) - number:,} more; `alpro index --status` lists all")
            break
        print(f"  {name}: {reason}")


def _print_status(folder: Path) -> None:
    from alpro.search.index import Index

    with Index(folder) as index:
        files, settings = index.files(), index.settings
        num_windows = len(index.windows().row)
        index.vectors()  # refuses an index without them
    readable = [one for one in files if one.reason is None]
    seconds = sum(one.duration for one in readable)
    print(
        f"{printable(str(folder))}: {pluralize(num_windows, 'window')} of {settings.window:g} s "
        f"every {settings.stride:g} s, of {pluralize(len(readable), 'video')}, {clock(seconds)}\n"
        f"model: {printable(settings.model)}"
    )
    for one in readable:
        if not one.is_complete:
            print(f"not indexed to the end: {one.name}")
    if reasons := {one.name: one.reason for one in files if one.reason is not None}:
        print(f"{pluralize(len(reasons), 'file')} cannot be read:")
    for name, reason in reasons.items():
        print(f"  {name}: {reason}")


def _merge(folder: Path, others: Sequence[Path]) -> None:
    from alpro.search.index import Index
    from alpro.search.index_writer import IndexWriter
    from alpro.search.updating import take_in

    with Index(others[0]) as first:
        settings = first.settings
    with IndexWriter(folder, settings) as writer:
        for other in others:
            print(f"{printable(str(other))}: {pluralize(take_in(writer, other), 'file')} added")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03``, or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
