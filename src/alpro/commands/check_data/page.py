"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from alpro.commands.check_data.report import Checked, Histogram, histograms, set_summaries
from alpro.commands.check_data.verdicts import format_size
from alpro.commands.gallery.page import render_page
from alpro.errors import pluralize

NUM_LISTED = 100  # findings of a kind that the page shows
NUM_OPEN = 20  # problems of a kind, at most, that are shown without a click
SUBJECT_WIDTH = 160  # characters of a finding's subject
NUM_EMPTY_BARS = 3  # one after the other, at most
JSON_NAME = "report.json"


def report_page(checked: Checked) -> str:
    """The page as HTML."""
    summary, sampling = checked.summary(), checked.task.sampling
    decoded = f"{sampling.num_frames} frames of each video ({sampling.strategy}) were decoded"
    return render_page(
        "data_check.html",
        title=f"Data check: {checked.task.title}",
        settings=f"{checked.when}. {decoded}{', then all others' if checked.full else ''}.",
        problems=pluralize(summary["problems"], "problem") if summary["problems"] else "",
        remarks=pluralize(summary["remarks"], "remark"),
        notices=checked.notices,
        tiles=list(_tiles(checked)),
        kinds=list(checked.findings.by_kind()),
        sets=set_summaries(checked),
        charts=[(one, list(_bars(one))) for one in histograms(checked)],
        num_listed=NUM_LISTED,
        num_open=NUM_OPEN,
        subject_width=SUBJECT_WIDTH,
        json_name=JSON_NAME,
    )


def _tiles(checked: Checked) -> Iterator[tuple[str, str]]:
    """The most important numbers, and their nouns."""
    summary = checked.summary()
    total = summary["videos"] + summary["images"] + summary["absent"]
    for noun in ("videos", "images"):
        if summary[noun]:
            yield f"{summary[noun]:,}", noun
    if summary["absent"]:
        yield f"{summary['absent']:,}", "not there"
    if total:
        # Rounded down: 100 only where that is all.
        share = int(1000 * summary["readable"] / total) / 10
        yield f"{share:g} %", "of all are readable" if summary["absent"] else "readable"
        yield format_size(summary["bytes"]), "in files"
    if hours := summary["hours"]:
        yield (f"{hours:,.1f}", "hours") if hours >= 1 else (f"{60 * hours:.1f}", "minutes")
    if checked.sets:
        yield f"{summary['texts']:,}", "captions or questions"


def _bars(histogram: Histogram) -> Iterator[tuple[str, int, float, bool] | None]:
    """Name, count, share of the longest bar, and whether it is beyond the limit.

    None stands for a long run of empty bars.
    """
    most = max(count for _, count in histogram.bars)
    for is_empty, run in groupby(enumerate(histogram.bars), key=lambda one: one[1][1] == 0):
        bars = list(run)
        if is_empty and len(bars) > NUM_EMPTY_BARS:
            yield None
            continue
        for position, (name, count) in bars:
            is_beyond = histogram.limit is not None and position >= histogram.limit
            yield name, count, count / most, is_beyond
