"""Findings derived from the measurements of videos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from alpro.commands.check_data.findings import Finding
from alpro.commands.check_data.media import Media
from alpro.commands.check_data.probe_pool import Probed, confirm_duplicates
from alpro.commands.check_data.sources import CheckedSet, Sampling
from alpro.commands.check_data.texts import few
from alpro.errors import pluralize

MIN_NUM_TO_COMPARE = 20  # videos, for one of them to be much longer than the others
OUTLIER_RATIO = 4.0  # of the median, or its inverse
OUTLIER_RANGES = 3.0  # distances between the quartiles, of logarithms
LENGTH_TOLERANCE = 0.1  # of a declared length
FRAMES_TOLERANCE = 2  # of a declared count, beside the share above
SECONDS_TOLERANCE = 0.5
MAX_ASPECT = 3.0  # width over height, or its inverse
ONE_COLOUR_CONTRAST = 3.0  # grey levels, as all of these
BLACK_BRIGHTNESS = 20.0
ALIKE_CHANGE = 0.3


def judge(videos: Sequence[Probed], *, sampling: Sampling) -> Iterator[Finding]:
    """Findings about single videos or images, unreadable ones and outliers."""
    for one in videos:
        if one.probe.verdict == "readable":
            yield from _of_readable(one, sampling)
        else:
            yield _finding(one.probe.verdict, one, one.probe.reason)
    yield from _outliers(
        videos, "odd_duration", lambda one: one.probe.seconds, lambda value: f"{value:,.1f} s"
    )
    for of_images in (False, True):
        some = [one for one in videos if one.item.is_image == of_images]
        yield from _outliers(some, "odd_size", lambda one: one.probe.num_bytes, format_size)


def _of_readable(one: Probed, sampling: Sampling) -> Iterator[Finding]:
    probe = one.probe
    if probe.trouble:
        yield _finding("decode_errors", one, probe.trouble)
    if message := _other_length(one):
        yield _finding("wrong_header", one, message)
    if message := _picture(one):
        yield _finding("no_picture", one, message)
    elif probe.change is not None and probe.change < ALIKE_CHANGE:
        message = f"the frames read differ by {probe.change:g} grey levels at most"
        yield _finding("no_motion", one, message)
    if probe.width and probe.height:
        wide, tall = probe.width / probe.height, probe.height / probe.width
        if max(wide, tall) > MAX_ASPECT:
            yield _finding("odd_shape", one, f"{probe.width} x {probe.height}")
    if sampling.counts_as_short and not one.item.is_image:
        yield from _short(one, sampling.num_frames)


def _finding(kind: str, one: Probed, message: str) -> Finding:
    return Finding(kind, one.item.video_id, message, _place(one))


def _place(one: Probed) -> str:
    return ", ".join(map(str, one.sets)) or str(one.item.storage or "")


def _short(one: Probed, wanted: int) -> Iterator[Finding]:
    count = one.probe.num_frames
    if count is not None and count < wanted:
        yield _finding("too_short", one, f"{pluralize(count, 'frame')}, num_frm is {wanted}")


def _other_length(one: Probed) -> str:
    """Declared and actual length, if they differ."""
    probe, facts = one.probe, []
    declared, actual = probe.declared_frames, probe.num_frames
    if declared and actual is not None:
        allowed = max(FRAMES_TOLERANCE, LENGTH_TOLERANCE * declared)
        if abs(declared - actual) > allowed:
            facts.append(f"{pluralize(declared, 'frame')} declared, {actual:,} in the file")
    if probe.declared_seconds and probe.seconds is not None:
        allowed = max(SECONDS_TOLERANCE, LENGTH_TOLERANCE * probe.declared_seconds)
        if abs(probe.declared_seconds - probe.seconds) > allowed:
            facts.append(f"{probe.declared_seconds:g} s declared, {probe.seconds:g} s in the file")
    return "; ".join(facts)


def _picture(one: Probed) -> str:
    """Name of a picture without contrast, empty for others."""
    probe = one.probe
    if probe.contrast is None or probe.contrast >= ONE_COLOUR_CONTRAST:
        return ""
    assert probe.brightness is not None
    return "black" if probe.brightness < BLACK_BRIGHTNESS else "one colour"


def _outliers(
    videos: Sequence[Probed],
    kind: str,
    value_of: Callable[[Probed], float | None],
    format_value: Callable[[float], str],
) -> Iterator[Finding]:
    """Videos whose logarithm is far from the median, by the interquartile range and a ratio."""
    measured = [(one, value_of(one)) for one in videos if one.probe.verdict == "readable"]
    known = [(one, value) for one, value in measured if value]
    if len(known) < MIN_NUM_TO_COMPARE:
        return
    # Sizes and durations are spread over orders of magnitude: compare logarithms.
    logs = np.log([value for _, value in known])
    low, middle, high = np.percentile(logs, [25, 50, 75])
    allowed = max(np.log(OUTLIER_RATIO), OUTLIER_RANGES * (high - low))
    usual = format_value(float(np.exp(middle)))
    for (one, value), log in zip(known, logs, strict=True):
        if abs(log - middle) > allowed:
            yield _finding(kind, one, f"{format_value(value)}; the median is {usual}")


def format_size(num_bytes: float) -> str:
    """Human-readable size: ``1.4 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if round(num_bytes) < 1000:
            return f"{num_bytes:.3g} {unit}" if unit != "bytes" else f"{num_bytes:.0f} bytes"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} TB"


def judge_contents(videos: Sequence[Probed]) -> Iterator[Finding]:
    """Files with the same content: in training and evaluation, or just twice."""
    by_digest: dict[str, list[Probed]] = defaultdict(list)
    for one in videos:
        if one.probe.digest is not None:
            by_digest[one.probe.digest].append(one)
    for group in confirm_duplicates(same for same in by_digest.values() if len(same) > 1):
        # A copy in both training and evaluation is a leak, others are mere duplicates.
        trained = [one for one in group if "train" in _splits(one)]
        evaluated = [one for one in group if _splits(one) & {"val", "test"}]
        pairs = [(one, other) for one in evaluated for other in trained if one is not other]
        for one, other in pairs:
            message = f"same content as {other.item.video_id} in {_place(other)}"
            yield _finding("shared_content", one, message)
        if not pairs:
            first, *others = group
            names = [one.item.video_id for one in others]
            yield _finding(
                "duplicate",
                first,
                f"same content in {pluralize(len(names), 'other file')}: {few(names)}",
            )


def _splits(one: Probed) -> set[str]:
    return {source.split for source in one.sets}


def judge_splits(media: Media, sets: Sequence[CheckedSet]) -> Iterator[Finding]:
    """Videos that are named in training and evaluation, or in validation and test."""
    same = {("val", "test"): "shared_by_evaluations"}
    for position, one in enumerate(sets):
        for other in sets[position + 1 :]:
            if one.split == other.split or not one.split or not other.split:
                continue
            kind = same.get((one.split, other.split), "shared_video")
            where = f"{one}, {other}"
            if kind == "shared_by_evaluations" and one.annotations == other.annotations:
                message = "validation and test have the same annotations"
                yield Finding(kind, str(one.annotations), message, where)
                continue
            # Compare by file, not by id: two ids may name one file.
            theirs = set(media.ids_of_set[other.key].values())
            for video_id, key in media.ids_of_set[one.key].items():
                if key in theirs:
                    yield Finding(kind, video_id, "", where)
