"""Accuracy of searches for moments: ``bench moments --moments FILE --index INDEX [INDEX ...]``.

The file has JSON lines ``{"video", "caption", "moment", "reversed"}``: the end of the video's path;
start and end in seconds of what the caption says, and, if known, of the same backwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alpro.commands.cli import any_path_flag, not_negative, progress
from alpro.commands.gallery.results import markdown_table
from alpro.errors import InputError
from alpro.user_files import parse_json_line, read_lines

if TYPE_CHECKING:
    from alpro.search.index import IndexedFile
    from alpro.search.searcher import Moment, Query, Searcher

TOP = 5
MIN_OVERLAP = 0.5  # intersection over union
HEADER = (
    *("index", f"R@1, IoU >= {MIN_OVERLAP:g}", f"R@{TOP}", "right video first"),
    *("reversed clip above", "seconds a query"),
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the benchmark's flags."""
    parser.add_argument(
        "--index", nargs="+", type=any_path_flag, required=True, help="indexes to compare"
    )
    parser.add_argument(
        "--moments",
        type=any_path_flag,
        default=Path("data/demo/txt/long_test.jsonl"),
        help="captions with their moments (default: those of the demo)",
    )
    parser.add_argument(
        "--rerank", type=not_negative, default=0, help="moments that are ranked again"
    )


def run(flags: argparse.Namespace) -> None:
    """Measure and print."""
    from alpro.inference.model import load
    from alpro.search.index import Index
    from alpro.search.searcher import Searcher

    rows = [parse_json_line(line) for line in read_lines(flags.moments)]
    if not rows:
        raise InputError(f"{flags.moments}: holds no caption")
    table = []
    for folder in flags.index:
        with Index(folder) as index:
            model = load(index.settings.model, device="cpu")
            searcher = Searcher(index, lambda model=model: model)  # type: ignore[misc]
            table.append([str(folder), *_measure(searcher, rows, rerank=flags.rerank)])
    print(markdown_table(HEADER, table))


def _measure(searcher: Searcher, rows: Sequence[dict[str, Any]], *, rerank: int) -> list[str]:
    from alpro.search.searcher import Query

    first, in_top, video, seconds, is_reversed = 0, 0, 0, 0.0, []
    for row in progress(rows, len(rows), "captions", "caption"):
        query = Query(texts=(row["caption"],), top=TOP, rerank=rerank)
        result = searcher.search(query)
        is_right = [
            _is_named(one.file, row) and overlap(one, row["moment"]) for one in result.moments
        ]
        first += bool(is_right and is_right[0])
        in_top += any(is_right)
        video += bool(result.moments) and _is_named(result.moments[0].file, row)
        seconds += result.seconds
        if "reversed" in row:
            own, other = _best(searcher, query, row, ("moment", "reversed"))
            is_reversed.append(other > own)
    shares = [first / len(rows), in_top / len(rows), video / len(rows)]
    backwards = f"{100 * np.mean(is_reversed):.0f} %" if is_reversed else "-"
    return [*(f"{100 * one:.0f} %" for one in shares), backwards, f"{seconds / len(rows):.3f}"]


def _is_named(file: IndexedFile, row: dict[str, Any]) -> bool:
    return str(file.path).endswith("/" + row["video"])


def overlap(moment: Moment, span: Sequence[float]) -> bool:
    """Return whether a moment is that of a caption."""
    shared = min(moment.end, span[1]) - max(moment.start, span[0])
    union = max(moment.end, span[1]) - min(moment.start, span[0])
    return shared >= MIN_OVERLAP * union


def _best(
    searcher: Searcher, query: Query, row: dict[str, Any], keys: Sequence[str]
) -> list[float]:
    """Best score of the windows whose middle is in the span of each key."""
    index, vector = searcher.index, searcher.vector_of(query)
    (file,) = (one for one in index.files() if _is_named(one, row))
    windows, best = index.windows(), [-np.inf for _ in keys]
    places = np.flatnonzero(windows.file == file.id)
    scores = index.vectors()[windows.row[places]].astype(np.float32) @ vector
    for place, score in zip(places, scores, strict=True):
        middle = np.mean(index.settings.span(int(windows.number[place]), duration=file.duration))
        for which, key in enumerate(keys):
            if row[key][0] < middle < row[key][1]:
                best[which] = max(best[which], float(score))
    return best
