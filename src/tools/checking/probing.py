"""Looking at all videos and images of a task, in parallel; an interrupted check goes on."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from src.datasets.storage import VideoFolder, VideoStorage, lost_zeros, open_videos
from src.errors import InputError
from src.tools.checking.annotated import ReadSet
from src.tools.checking.findings import Finding, Findings
from src.tools.checking.probe import SAMPLED, Item, Probe, digest_of, probe_item
from src.tools.checking.sources import CheckedSet, Sampling, Task
from src.tools.parallel import Failure, Journal, run_isolated

LOGFILE_REDRAW_SECONDS = 5.0  # of a progress bar that is not on a terminal
JOURNAL_VERSION = 1  # of what a probe holds


@dataclass(slots=True)
class Probed:
    """A video or image, what was seen of it, and the sets that name it."""

    item: Item
    probe: Probe
    sets: tuple[CheckedSet, ...] = ()


@dataclass(slots=True)
class Media:
    """All videos and images of a task."""

    items: dict[str, Item] = field(default_factory=dict)
    """By key."""
    sets_of: dict[str, list[CheckedSet]] = field(default_factory=lambda: defaultdict(list))
    """Key of an item -> the sets that name it."""
    ids_of_set: dict[str, dict[str, str]] = field(default_factory=dict)
    """Key of a set -> its ids, and the keys of the items that they name."""


def collect_media(task: Task, sets: Sequence[ReadSet], findings: Findings) -> Media:
    """Find out what is to be probed; what is not there becomes findings."""
    media, storages = Media(), _Storages(findings)
    for data in sets:
        source = data.source
        if source.of_images:
            items = [_image(source.media, name) for name in data.video_ids()]
        else:
            assert source.media is not None
            storage = storages.open(source.media, source.extension, where=str(source))
            items = [] if storage is None else storages.named(storage, data)
        media.ids_of_set[source.key] = {item.video_id: item.key for item in items}
        for item in items:
            media.items.setdefault(item.key, item)
            media.sets_of[item.key].append(source)
    for path, extension in task.storages.items():
        storage = storages.open(path, extension, where=str(path))
        for item in [] if storage is None else storages.all_of(storage):
            media.items.setdefault(item.key, item)
    _note_unused(storages, media, findings, annotated=bool(task.sets))
    return media


class _Storages:
    """Opens each storage once, and finds videos in it."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.opened: dict[tuple[Path, str], VideoStorage | None] = {}

    def open(self, path: Path, extension: str, *, where: str) -> VideoStorage | None:
        if (path, extension) not in self.opened:
            try:
                self.opened[path, extension] = open_videos(path, extension=extension)
            except InputError as error:
                self.opened[path, extension] = None
                self.findings.add([Finding("missing", str(path), str(error), where)])
        return self.opened[path, extension]

    def named(self, storage: VideoStorage, data: ReadSet) -> list[Item]:
        """The videos of a set that are there."""
        ids, where = data.video_ids(), str(data.source)
        missing = self._missing(storage, ids, where=where)
        hint = lost_zeros(missing, storage.listed_names()) or ""
        self.findings.add(Finding("missing", name, hint, where) for name in missing)
        absent, items, ids_of = set(missing), [], defaultdict(list)
        for name in ids:
            item = None if name in absent else self.item(storage, name, data.source.extension)
            if item is not None:
                items.append(item)
                ids_of[item.key].append(name)
        for _key, (first, *others) in ids_of.items():
            told = f"the file of {first}"
            self.findings.add(Finding("same_file", other, told, where) for other in others)
        return items

    def _missing(self, storage: VideoStorage, ids: Sequence[str], *, where: str) -> list[str]:
        try:
            return storage.missing(ids)
        except InputError as error:  # two files of one name
            self.findings.add([Finding("ambiguous", str(storage.root), str(error), where)])
            return []

    def item(self, storage: VideoStorage, name: str, extension: str) -> Item | None:
        """A video that is there; None where its id does not tell its file."""
        path = None
        if isinstance(storage, VideoFolder):
            try:
                found = storage.fetch(name)
            except InputError as error:
                self.findings.add([Finding("ambiguous", name, str(error), str(storage.root))])
                return None
            path = found if isinstance(found, Path) else None
        key = str(path or storage.root / name)
        return Item(key, name, storage.root, path, extension, is_image=False)

    def all_of(self, storage: VideoStorage) -> Iterator[Item]:
        """All videos that a storage holds."""
        try:
            names = storage.video_ids()
        except InputError as error:
            self.findings.add([Finding("ambiguous", str(storage.root), str(error), "")])
            return
        extension = storage.extension if isinstance(storage, VideoFolder) else ".mp4"
        for name in names:
            item = self.item(storage, name, extension)
            if item is not None:
                yield item


def _image(root: Path | None, name: str) -> Item:
    path = Path(name) if root is None else root / name
    return Item(str(path), name, root, path, "", is_image=True)


def _note_unused(
    storages: _Storages, media: Media, findings: Findings, *, annotated: bool
) -> None:
    if not annotated:
        return
    for (path, _), storage in storages.opened.items():
        for item in [] if storage is None else storages.all_of(storage):
            if item.key not in media.sets_of:
                findings.add([Finding("unused", item.video_id, "", str(path))])


def probe_all(
    media: Media,
    *,
    sampling: Sampling,
    full: bool,
    num_workers: int,
    seconds: float,
    megabytes: int,
    folder: Path,
) -> list[Probed]:
    """Look at everything, and keep what was seen beside the report, so that it is done once.

    Args:
        media: what there is.
        sampling: the frames that are decoded.
        full: decode all others as well.
        num_workers: processes.
        seconds: that a video may take, 0 for any number.
        megabytes: of memory, as well.
        folder: of the report.
    """
    limits = {"seconds": seconds, "megabytes": megabytes, "full": full}
    settings = json.dumps([JOURNAL_VERSION, asdict(sampling), limits], sort_keys=True)
    name = hashlib.sha256(settings.encode()).hexdigest()[:12]
    journal = Journal(folder / f"probes_{name}.jsonl")
    stamps = {key: _stamped(item) for key, item in media.items.items()}
    todo = [item for key, item in media.items.items() if stamps[key] not in journal.done]
    probes = {
        key: Probe(**journal.done[stamp]) for key, stamp in stamps.items() if stamp in journal.done
    }
    results = run_isolated(
        partial(probe_item, sampling=sampling, full=full),
        todo,
        num_workers=num_workers,
        seconds=seconds,
        megabytes=megabytes,
    )
    for item, result in _with_progress(results, total=len(media.items), done=len(probes)):
        probe = _failed(item, result) if isinstance(result, Failure) else result
        probes[item.key] = probe
        if not isinstance(result, Failure) or result.cut_off:  # else the disk: it may be back soon
            journal.add(stamps[item.key], asdict(probe))
    return [
        Probed(item, probes[key], tuple(media.sets_of.get(key, ())))
        for key, item in media.items.items()
    ]


def _failed(item: Item, failure: Failure) -> Probe:
    probe = Probe("cut_off" if failure.cut_off else "unreadable", failure.reason)
    if item.path is not None:
        with suppress(OSError):
            probe.num_bytes = item.path.stat().st_size
    return probe


def _with_progress(
    results: Iterable[tuple[Item, Probe | Failure]], *, total: int, done: int
) -> Iterator[tuple[Item, Probe | Failure]]:
    with tqdm(
        total=total,
        initial=done,
        desc="videos and images",
        unit="file",
        mininterval=0.1 if sys.stderr.isatty() else LOGFILE_REDRAW_SECONDS,
    ) as progress:
        for item, result in results:
            yield item, result
            progress.update()


def _stamped(item: Item) -> str:
    """What a look at an item is known by: it is looked at again when its file has changed."""
    try:
        state = (item.path or _data_file(item)).stat()
    except OSError:
        return f"{item.key}|"
    return f"{item.key}|{state.st_size}|{state.st_mtime_ns}"


def _data_file(item: Item) -> Path:
    """What changes when a video in an LMDB or shards does."""
    assert item.storage is not None
    data = item.storage / "data.mdb"
    return data if data.is_file() else item.storage


def confirm_duplicates(groups: Iterable[list[Probed]]) -> Iterator[list[Probed]]:
    """Of files whose hashed parts are equal, those that are equal as a whole."""
    for group in groups:
        if not str(group[0].probe.digest).startswith(SAMPLED):
            yield group
            continue
        same = defaultdict(list)
        for one in group:
            same[_whole_digest(one)].append(one)
        yield from (found for found in same.values() if len(found) > 1)


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
