"""The report as plain values: checked sets, findings and histograms."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from alpro.commands.check_data.annotations import ReadSet
from alpro.commands.check_data.findings import Findings
from alpro.commands.check_data.media import Media
from alpro.commands.check_data.probe_pool import Probed
from alpro.commands.check_data.sources import Task
from alpro.commands.check_data.verdicts import format_size
from alpro.errors import pluralize

_TABLE: tuple[object, ...] = (
    *("video_id", "verdict", "reason"),
    *("frames", "seconds", "width", "height", "bytes", "codec", "place"),
)
"""Columns of ``videos.tsv``."""
NUM_CODECS = 8  # with a bar of their own; the others share one
_MEGABYTE = 1e6

_SECONDS = (0, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 1800, 3600, inf)
_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, inf)
_RATES = (0, 5, 9, 11, 14, 16, 22, 24.5, 26, 29, 31, 49, 61, inf)
_SIDES = (1, 112, 160, 224, 240, 256, 320, 360, 480, 720, 1080, 2160, inf)
_BYTES = tuple(_MEGABYTE * size for size in (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000, inf))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Histogram of one property."""

    title: str
    unit: str
    bars: list[tuple[str, int]]
    """Label and count of each bar."""
    limit: int | None = None
    """The position of the first bar beyond a limit."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """All results of a check."""

    task: Task
    full: bool
    when: str
    sets: Sequence[ReadSet]
    media: Media
    videos: Sequence[Probed]
    findings: Findings
    token_lengths: dict[str, Counter[int]] = field(default_factory=dict)
    """Key of a set -> how many of its texts have so many word pieces."""
    notices: Sequence[str] = ()

    def summary(self) -> dict[str, Any]:
        """The most important numbers."""
        readable = [one for one in self.videos if one.probe.verdict == "readable"]
        videos = [one for one in self.videos if not one.item.is_image]
        return {
            "problems": self.findings.count("problem"),
            "remarks": self.findings.count("remark"),
            "videos": len(videos),
            "images": len(self.videos) - len(videos),
            "readable": len(readable),
            "absent": len(self.absent()),
            "hours": round(sum(one.probe.seconds or 0 for one in readable) / 3600, 3),
            "bytes": sum(one.probe.num_bytes or 0 for one in self.videos),
            "texts": sum(len(data.texts) for data in self.sets),
        }

    def absent(self) -> list[tuple[str, str]]:
        """Ids that annotations name without a file, with the place where it should be."""
        present = self.media.ids_of_set
        return list(
            dict.fromkeys(
                (name, str(data.source.media))
                for data in self.sets
                for name in data.video_ids()
                if name not in present.get(data.source.key, ())
            )
        )


def histograms(checked: Checked) -> list[Histogram]:
    """Of videos and images that are readable, and of texts."""
    readable = [one for one in checked.videos if one.probe.verdict == "readable"]
    videos = [one for one in readable if not one.item.is_image]
    codecs = Counter(one.probe.codec or "unknown" for one in readable)
    named = codecs.most_common(NUM_CODECS)
    if others := codecs.total() - sum(count for _, count in named):
        named.append(("others", others))
    bars = [
        _binned("Duration", "videos", (one.probe.seconds for one in videos), _SECONDS, "s"),
        _binned("Frames", "videos", (one.probe.num_frames for one in videos), _FRAMES, None),
        _binned("Frames per second", "videos", (one.probe.fps for one in videos), _RATES, ""),
        _binned("Shorter side", "files", map(_shorter_side, readable), _SIDES, "px"),
        _binned("Size", "files", (one.probe.num_bytes for one in readable), _BYTES, format_size),
        Histogram("Format", "files", named),
    ]
    bars += [_of_tokens(checked, data) for data in checked.sets]
    return [one for one in bars if any(count for _, count in one.bars)]


def _shorter_side(one: Probed) -> int | None:
    return min(one.probe.width or 0, one.probe.height or 0) or None


def _binned(
    title: str,
    noun: str,
    values: Iterable[float | None],
    edges: Sequence[float],
    unit: str | Callable[[float], str] | None,
) -> Histogram:
    """Counts between edges; bars from the first that is not empty to the last.

    Args:
        title: of the histogram.
        noun: what is counted.
        values: measured ones; None where there is none.
        edges: the first and the last stand for any.
        unit: of the values, or what writes them; None: they are whole numbers.
    """
    counts = [0] * (len(edges) - 1)
    for value in values:
        if value is not None:
            counts[sum(value >= edge for edge in edges[1:-1])] += 1
    # Drop empty bars at both ends.
    names = list(_spans(edges, unit))
    used = [position for position, count in enumerate(counts) if count]
    first, last = (used[0], used[-1]) if used else (0, 0)
    return Histogram(title, noun, list(zip(names, counts, strict=True))[first : last + 1])


def _spans(edges: Sequence[float], unit: str | Callable[[float], str] | None) -> Iterator[str]:
    def label(edge: float) -> str:
        return unit(edge) if callable(unit) else f"{edge:g} {unit or ''}".strip()

    for low, high in zip(edges, edges[1:], strict=False):
        if high == inf:
            yield f"from {label(low)}"
        elif unit is None:
            yield f"{low:g}" if high - low == 1 else f"{low:g} to {high - 1:g}"
        elif low == edges[0]:
            yield f"below {label(high)}"
        else:
            yield f"to {label(high)}" if callable(unit) else f"{low:g} to {label(high)}"


def _of_tokens(checked: Checked, data: ReadSet) -> Histogram:
    """Lengths of a set's texts; `limit` is where they are cut."""
    counts, limits = checked.token_lengths.get(data.source.key, Counter()), checked.task.texts
    title = f"Word pieces: {data.source}"
    if not counts or limits is None:
        return Histogram(title, "texts", [])
    # At most about 25 bars, one of which begins where texts are cut.
    width = 1 + max(limits.max_length, max(counts)) // 25
    edge = limits.max_length + 1  # a bar begins where texts are cut
    first = edge - width * -(-edge // width)
    # Count the texts of each bar.
    bars: list[tuple[str, int]] = []
    limit, start = None, first
    while start <= max(counts):
        stop = start + width
        if start == edge:
            limit = len(bars)
        count = sum(counts[length] for length in range(start, stop))
        shown = max(start, 0)
        bars.append((f"{shown}" if stop - shown == 1 else f"{shown} to {stop - 1}", count))
        start = stop
    # Leave out empty bars at the start.
    begin = next((position for position, (_, count) in enumerate(bars) if count), 0)
    cut = sum(count for length, count in counts.items() if length >= edge)
    share = f"{100 * cut / counts.total():.2g} %" if cut else "none"
    total = pluralize(counts.total(), "text")
    note = f"{share} of {total} cut at max_txt_len = {limits.max_length}"
    return Histogram(
        title, "texts", bars[begin:], None if limit is None else max(limit - begin, 0), note
    )


def set_summaries(checked: Checked) -> list[dict[str, Any]]:
    """Each set with its counts."""
    return [
        {
            "key": data.source.key,
            "name": data.source.name,
            "split": data.source.split,
            "annotations": str(data.source.annotations),
            "rows": data.source.rows,
            "media": None if data.source.media is None else str(data.source.media),
            "num_texts": len(data.texts),
            "num_videos": len(data.video_ids()),
            "num_present": len(checked.media.ids_of_set.get(data.source.key, ())),
            "num_broken_rows": data.num_broken,
            "num_left_out_rows": data.num_left_out,
        }
        for data in checked.sets
    ]


def as_json(checked: Checked) -> str:
    """The whole report, with one line per finding and video."""
    task = checked.task
    head = {
        "checked": {
            "title": task.title,
            "when": checked.when,
            **asdict(task.sampling),
            "full": checked.full,
            "max_txt_len": None if task.texts is None else task.texts.max_length,
        },
        "summary": checked.summary(),
        "notices": list(checked.notices),
        "sets": set_summaries(checked),
        "histograms": [asdict(one) for one in histograms(checked)],
        "token_lengths": {
            key: {str(length): counts[length] for length in sorted(counts)}
            for key, counts in checked.token_lengths.items()
        },
    }
    # Findings and videos get a line each, so that the file can be searched.
    parts = [f'"{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in head.items()]
    findings = ",\n".join(_findings_json(checked.findings))
    videos = ",\n".join(json.dumps(video_record(one), ensure_ascii=False) for one in checked.videos)
    text = ",\n".join([*parts, f'"findings": {{{findings}}}', f'"videos": [\n{videos}\n]'])
    return f"{{{text}}}\n"


def _findings_json(findings: Findings) -> Iterator[str]:
    for name, kind, some in findings.by_kind():
        items = ",\n".join(
            json.dumps(
                {"subject": one.subject, "told": one.message, "where": one.where},
                ensure_ascii=False,
            )
            for one in some
        )
        head = json.dumps(asdict(kind) | {"count": len(some)})[1:-1]
        yield f'\n"{name}": {{{head}, "items": [\n{items}\n]}}'


def video_record(one: Probed) -> dict[str, Any]:
    """A video with its measurements."""
    place = {"video_id": one.item.video_id, "place": one.item.key}
    return {**place, "sets": [source.key for source in one.sets], **asdict(one.probe)}


def as_tsv(checked: Checked) -> str:
    """Table of all videos and images, with tabs between columns and a header line."""
    lines = [_TABLE]
    for one in checked.videos:
        probe = one.probe
        measured = (probe.num_frames, probe.seconds, probe.width, probe.height, probe.num_bytes)
        lines.append(
            (one.item.video_id, probe.verdict, probe.reason, *measured, probe.codec, one.item.key)
        )
    for video_id, place in checked.absent():
        lines.append((video_id, "missing", "", *[None] * 6, place))
    return "".join("\t".join(map(_cell, line)) + "\n" for line in lines)


def _cell(value: object) -> str:
    return "" if value is None else " ".join(str(value).split())
