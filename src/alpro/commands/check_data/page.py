"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from alpro.commands.check_data.findings import Finding, Kind
from alpro.commands.check_data.report import Checked, Histogram, histograms, sets_told
from alpro.commands.check_data.style import STYLE
from alpro.commands.check_data.verdicts import size_told
from alpro.commands.cli import pluralize
from alpro.commands.gallery.html_page import html_page, isolated

NUM_LISTED = 100  # findings of a kind that the page shows
NUM_OPEN = 20  # problems of a kind, at most, that are shown without a click
SUBJECT_WIDTH = 160  # characters of a text that is found, on the page
NUM_EMPTY_BARS = 3  # one after the other, at most
JSON_NAME = "report.json"
_SCRIPT = """
function reveal(hash) {
  const target = hash.length > 1 && document.getElementById(hash.slice(1));
  if (target) target.open = true;
}
for (const link of document.querySelectorAll('a[href^="#"]'))
  link.addEventListener("click", () => reveal(link.hash));
reveal(location.hash);
"""
"""Opens the list that a link leads to."""


def report_page(checked: Checked) -> str:
    """The page as HTML."""
    title = f"Data check: {checked.task.title}"
    notices = "".join(f'<p class="notice">{escape(notice)}</p>' for notice in checked.notices)
    main = f"""<h1>{_breakable(title)}</h1>
<p class="pale">{escape(_settings(checked))}</p>
{_verdict(checked)}
{notices}
{_tiles(checked)}
{_overview(checked)}
{_sets(checked)}
{_charts(checked)}
{_lists(checked)}
<p class="pale">Everything is in {JSON_NAME} beside this page: all findings, and what was measured
of each file. videos.tsv has a line for each.</p>"""
    return html_page(main, title=title, style=STYLE, script=_SCRIPT)


def _settings(checked: Checked) -> str:
    sampling = checked.task.sampling
    frames = f"{sampling.num_frames} frames of each video ({sampling.strategy}) were decoded"
    if checked.full:
        frames += ", then all others"
    return f"{checked.when}. {frames}."


def _verdict(checked: Checked) -> str:
    summary = checked.summary()
    remarks = f"{pluralize(summary['remarks'], 'remark')} below."
    if summary["problems"]:
        found = pluralize(summary["problems"], "problem")
        return (
            f'<p class="verdict bad"><b>{found}</b> to be solved before this is trained on. '
            f"{remarks}</p>"
        )
    return f'<p class="verdict good"><b>No problems.</b> {remarks}</p>'


def _tiles(checked: Checked) -> str:
    summary, tiles = checked.summary(), []
    for noun in ("videos", "images"):
        if summary[noun]:
            tiles.append((f"{summary[noun]:,}", noun))
    if summary["absent"]:
        tiles.append((f"{summary['absent']:,}", "not there"))
    total = summary["videos"] + summary["images"] + summary["absent"]
    if total:
        share = f"{_floored_percent(summary['readable'], total)} %"
        noun = "of all are readable" if summary["absent"] else "readable"
        tiles += [(share, noun), (size_told(summary["bytes"]), "in files")]
    if summary["hours"]:
        hours = summary["hours"]
        length = (f"{hours:,.1f}", "hours") if hours >= 1 else (f"{60 * hours:.1f}", "minutes")
        tiles.append(length)
    if checked.sets:
        tiles.append((f"{summary['texts']:,}", "captions or questions"))
    cells = "".join(
        f"<div><b>{escape(value)}</b><span>{noun}</span></div>" for value, noun in tiles
    )
    return f'<section class="tiles">{cells}</section>'


def _floored_percent(part: int, whole: int) -> str:
    """100 only where that is all."""
    return f"{int(1000 * part / whole) / 10:g}"


def _overview(checked: Checked) -> str:
    rows = "\n".join(
        f'<tr><td class="number">{len(found):,}</td>'
        f'<td class="title"><a href="#{name}">{escape(kind.title)}</a></td>'
        f'<td><span class="chip {kind.level}">{kind.level}</span></td>'
        f"<td>{escape(kind.remedy)}</td></tr>"
        for name, kind, found in checked.findings.found()
    )
    if not rows:
        return ""
    return f'<h2>Found</h2>\n<table class="stacked">\n{rows}\n</table>'


def _sets(checked: Checked) -> str:
    if not checked.sets:
        return ""
    head = "".join(
        f"<th{' class=number' if number else ''}>{name}</th>"
        for name, number in [
            *(("set", False), ("annotations, and folder of what they name", False)),
            *(("texts", True), ("videos or images", True), ("there", True)),
            *(("broken rows", True), ("left out, too long", True)),
        ]
    )
    rows = []
    for one in sets_told(checked):
        numbers = (
            *("num_texts", "num_videos", "num_present", "num_broken_rows", "num_left_out_rows"),
        )
        cells = "".join(f'<td class="number">{one[key]:,}</td>' for key in numbers)
        name = f'{escape(one["name"])} <span class="pale">{escape(one["key"])}</span>'
        media = _breakable(one["media"] or "paths as they are")
        places = f'{_breakable(one["annotations"])}<br><span class="pale">{media}</span>'
        rows.append(f'<tr><td>{name}</td><td class="path">{places}</td>{cells}</tr>')
    table = f"<table>\n<tr>{head}</tr>\n{''.join(rows)}\n</table>"
    return f'<h2>Sets</h2>\n<div class="wide">{table}</div>'


def _charts(checked: Checked) -> str:
    charts = "\n".join(_chart(one) for one in histograms(checked))
    return f'<h2>Distributions</h2>\n<div class="charts">\n{charts}\n</div>' if charts else ""


def _chart(histogram: Histogram) -> str:
    most = max(count for _, count in histogram.bars)
    rows = []
    num_empty = _empty_runs([count for _, count in histogram.bars])
    for position, (name, count) in enumerate(histogram.bars):
        if num_empty[position] > NUM_EMPTY_BARS:
            if num_empty[position - 1] == 0:  # the first of them; before it stands one with a bar
                rows.append('<div class="row"><span>⋮</span></div>')
            continue
        beyond = histogram.limit is not None and position >= histogram.limit
        width = 100 * count / most
        rows.append(
            f'<div class="row{" beyond" if beyond else ""}"><span>{escape(name)}</span>'
            f'<div class="track"><div class="bar" style="width: {width:.1f}%"></div></div>'
            f"<span>{f'{count:,}' if count else ''}</span></div>"
        )
    note = f'<p class="pale">{escape(histogram.note)}</p>' if histogram.note else ""
    title = f'{escape(histogram.title)} <span class="pale">{escape(histogram.unit)}</span>'
    return f'<article class="chart">\n<h3>{title}</h3>\n{note}{"".join(rows)}\n</article>'


def _empty_runs(counts: Sequence[int]) -> list[int]:
    """For each count of 0, how many such stand together; for all others 0."""
    lengths: list[int] = []
    for is_empty, run in groupby(counts, key=lambda count: count == 0):
        length = len(list(run))
        lengths += [length if is_empty else 0] * length
    return lengths


def _lists(checked: Checked) -> str:
    lists = [_list(name, kind, found) for name, kind, found in checked.findings.found()]
    return "<h2>All findings</h2>\n" + "\n".join(lists) if lists else ""


def _list(name: str, kind: Kind, found: Sequence[Finding]) -> str:
    rows = "\n".join(
        f'<tr><td class="path"><bdi lang="">{_breakable(_short(one.subject))}</bdi></td>'
        f"<td>{isolated(one.told)}</td>"
        f'<td class="pale">{escape(one.where)}</td></tr>'
        for one in found[:NUM_LISTED]
    )
    more = ""
    if len(found) > NUM_LISTED:
        left = f"{len(found) - NUM_LISTED:,}"
        more = f'<p class="pale">... and {left} more: findings.{name} in {JSON_NAME}</p>'
    opened = " open" if kind.level == "problem" and len(found) <= NUM_OPEN else ""
    return (
        f'<details id="{name}"{opened}>\n<summary><span class="chip {kind.level}">'
        f"{len(found):,}</span> {escape(kind.title)}</summary>\n"
        f"<p>{escape(kind.remedy)}</p>\n<table class='stacked'>\n{rows}\n</table>\n{more}</details>"
    )


def _breakable(text: str) -> str:
    """As HTML; lines may end after the slashes of a path."""
    return escape(text).replace("/", "/<wbr>")


def _short(text: str) -> str:
    return text if len(text) <= SUBJECT_WIDTH else f"{text[: SUBJECT_WIDTH - 1]}…"
