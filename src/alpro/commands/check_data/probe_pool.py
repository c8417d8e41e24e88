"""Inspection of all videos and images of a task, in parallel and resumable."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from alpro.commands.check_data.media import Media
from alpro.commands.check_data.probe import SAMPLED, Item, Probe, digest_of, probe_item
from alpro.commands.check_data.sources import CheckedSet, Sampling
from alpro.commands.cli import progress
from alpro.commands.parallel import Failure, Journal, run_isolated
from alpro.datasets.storage import open_videos

JOURNAL_VERSION = 2  # raised when the fields of a probe change


@dataclass(slots=True)
class Probed:
    """A video or image with its measurements and the sets that name it."""

    item: Item
    probe: Probe
    sets: tuple[CheckedSet, ...] = ()


def probe_all(
    media: Media,
    *,
    sampling: Sampling,
    full: bool,
    num_workers: int,
    seconds: float,
    megabytes: int,
    folder: Path,
    retry_failed: bool = False,
) -> list[Probed]:
    """Inspect everything that the journal beside the report does not hold yet.

    Args:
        media: what there is.
        sampling: the frames that are decoded.
        full: decode all others as well.
        num_workers: processes.
        seconds: that a video may take, 0 for any number.
        megabytes: of memory, as well.
        folder: of the report.
        retry_failed: inspect files again that could not be read before.
    """
    # Each combination of settings has a journal of its own.
    settings = json.dumps([JOURNAL_VERSION, asdict(sampling), full], sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:12]
    journal = Journal(folder / f"probes_{name}.jsonl")
    limits = {"seconds": seconds, "megabytes": megabytes}
    # Reuse the results of an earlier check for unchanged files.
    stamps = {key: _stamped(item) for key, item in media.items.items()}
    probes = {}
    for key, stamp in stamps.items():
        note = journal.done.get(stamp)
        if note is not None and not _is_due(note, limits, retry_failed=retry_failed):
            probes[key] = Probe(**note["probe"])
    # Inspect the rest, each file in an isolated process.
    results = run_isolated(
        partial(probe_item, sampling=sampling, full=full),
        [item for key, item in media.items.items() if key not in probes],
        num_workers=num_workers,
        seconds=seconds,
        megabytes=megabytes,
    )
    bar = progress(results, len(media.items), "videos and images", "file", initial=len(probes))
    for item, result in bar:
        probe = _failed(item, result) if isinstance(result, Failure) else result
        probes[item.key] = probe
        if not isinstance(result, Failure) or result.cut_off:  # else the disk: it may be back soon
            cut_off_at = limits if probe.verdict == "cut_off" else None
            journal.add(stamps[item.key], {"probe": asdict(probe), "cut_off_at": cut_off_at})
    return [
        Probed(item, probes[key], tuple(media.sets_of.get(key, ())))
        for key, item in media.items.items()
    ]


def _is_due(note: Mapping[str, Any], limits: Mapping[str, float], *, retry_failed: bool) -> bool:
    """Whether to inspect again: failed files, or those cut off at a limit raised since."""
    if retry_failed and note["probe"]["verdict"] != "readable":
        return True
    before = note["cut_off_at"]
    return before is not None and any(
        (limits[name] or inf) > (before[name] or inf) for name in limits
    )


def _failed(item: Item, failure: Failure) -> Probe:
    probe = Probe("cut_off" if failure.cut_off else "unreadable", failure.reason)
    if item.path is not None:
        with suppress(OSError):
            probe.num_bytes = item.path.stat().st_size
    return probe


def _stamped(item: Item) -> str:
    """Key of an item in the journal, which changes with its file."""
    try:
        state = (item.path or _data_file(item)).stat()
    except OSError:
        return f"{item.key}|"
    return f"{item.key}|{state.st_size}|{state.st_mtime_ns}"


def _data_file(item: Item) -> Path:
    """The file that changes with the videos of an LMDB or of shards."""
    assert item.storage is not None
    data = item.storage / "data.mdb"
    return data if data.is_file() else item.storage


def confirm_duplicates(groups: Iterable[list[Probed]]) -> Iterator[list[Probed]]:
    """Groups of files whose whole content is equal, among those with equal digests."""
    for group in groups:
        if not str(group[0].probe.digest).startswith(SAMPLED):
            yield group
            continue
        same = defaultdict(list)
        for one in group:
            same[_whole_digest(one)].append(one)
        yield from (equal for equal in same.values() if len(equal) > 1)


def _whole_digest(one: Probed) -> str:
    item = one.item
    video = item.path
    if video is None:
        assert item.storage is not None
        fetched = open_videos(item.storage, extension=item.extension).fetch(item.video_id)
        if fetched is None:
            return item.key
        return digest_of(fetched, size=one.probe.num_bytes or 0, whole=True)
    try:
        return digest_of(video, size=one.probe.num_bytes or 0, whole=True)
    except OSError:
        return item.key  # gone since it was probed: equal to nothing
