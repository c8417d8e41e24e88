"""Search an index: ``alpro search "a dog jumps over a fence"``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpro.commands.cli import DefaultsShown, any_path_flag, exit_code_of, not_negative, positive
from alpro.commands.index import DEFAULT_INDEX, clock

if TYPE_CHECKING:
    from alpro.search.searcher import Found, Moment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _search(flags))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro search",
        description="Find moments of the indexed videos by text, picture or clip.",
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("text", nargs="*", help="what to find; several texts are added up")
    add("--index", type=any_path_flag, default=Path(DEFAULT_INDEX), help="folder of the index")
    add(
        "--like",
        action="append",
        default=[],
        metavar="FILE",
        help="a picture, a clip, or seconds 3 to 7 of one (clip.mp4#t=3,7), to find what is alike",
    )
    add(
        "--not",
        action="append",
        default=[],
        dest="negatives",
        metavar="TEXT",
        help="text of what not to find",
    )
    add("--in", type=any_path_flag, dest="folder", metavar="DIR", help="only videos in this folder")
    add("--top", type=positive, default=10, help="number of moments")
    add(
        "--rerank",
        type=not_negative,
        default=0,
        help="rank so many of the best again, by the fusion encoder: slower and better",
    )
    add("--min-score", type=float, help="least similarity of a moment")
    add("--json", action="store_true", help="print JSON")
    add("--model", type=any_path_flag, help="folder of the index's model, if it has moved")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to encode")
    return parser


def _search(flags: argparse.Namespace) -> None:
    import alpro
    from alpro.search.index import Index
    from alpro.search.searcher import Example, Query, Searcher

    with Index(flags.index) as index:
        options: dict[str, Any] = {}
        if flags.min_score is not None:
            options["min_score"] = flags.min_score
        query = Query(
            texts=tuple(flags.text),
            examples=tuple(map(Example.of, flags.like)),
            negatives=tuple(flags.negatives),
            folder=flags.folder,
            top=flags.top,
            rerank=flags.rerank,
            **options,
        )
        model = flags.model or index.settings.model
        found = Searcher(index, lambda: alpro.load(model, device=flags.device)).search(query)
    print(json.dumps(as_json(found), indent=2) if flags.json else as_text(found))


def as_text(found: Found) -> str:
    """Moments for reading, grouped by file."""
    lines = []
    for moments in found.by_file():
        lines.append(moments[0].file.name)
        lines += [f"  {_line(one)}" for one in moments]
    counts = f"{found.num_windows:,} windows of {found.num_files:,} files"
    floor = f"a score of {found.floor:.3f} is the median of all"
    lines.append(f"{counts} searched in {found.seconds:.2f} s; {floor}")
    return "\n".join(lines)


def _line(moment: Moment) -> str:
    span = f"{clock(moment.start)} - {clock(moment.end)}"
    match = "" if moment.match is None else f"  match {moment.match:.2f}"
    return f"{moment.score:.3f}  {span}{match}"


def as_json(found: Found) -> dict[str, Any]:
    """Moments as JSON values; times in seconds."""
    return {
        "floor": found.floor,
        "num_windows": found.num_windows,
        "num_files": found.num_files,
        "seconds": found.seconds,
        "moments": [
            {
                "file": one.file.id,
                "path": str(one.file.path),
                "start": one.start,
                "end": one.end,
                "peak": list(one.peak),
                "score": one.score,
                "match": one.match,
            }
            for one in found.moments
        ],
    }
