"""Videos and images of a task, looked up in folders, LMDBs and shards by the ids of its sets."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from alpro.commands.check_data.annotations import ReadSet
from alpro.commands.check_data.findings import Finding, Findings
from alpro.commands.check_data.probe import Item
from alpro.commands.check_data.sources import CheckedSet, Task
from alpro.datasets.decoding.image_files import is_image
from alpro.datasets.storage import (
    ImageFolder,
    VideoFolder,
    VideoStorage,
    hint_of_missing,
    open_videos,
    why_outside,
)
from alpro.datasets.storage.base import AmbiguousIdError
from alpro.datasets.storage.directory_index import without_video_extension
from alpro.errors import InputError

MIN_LIKENESS = 0.7  # of a misspelt id to a name, from 0 to 1: one letter of four
MAX_MISSING, MAX_NAMES = 50, 10_000  # compared, which takes some seconds


@dataclass(slots=True)
class Media:
    """All videos and images of a task."""

    items: dict[str, Item] = field(default_factory=dict)
    """Key -> video or image."""
    sets_of: dict[str, list[CheckedSet]] = field(default_factory=lambda: defaultdict(list))
    """Key of an item -> the sets that name it."""
    ids_of_set: dict[str, dict[str, str]] = field(default_factory=dict)
    """Key of a set -> its ids, and the keys of the items that they name."""


def collect_media(task: Task, sets: Sequence[ReadSet], findings: Findings) -> Media:
    """Collect the files to probe; missing ones become findings."""
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
    # Storages without annotations are inspected as a whole.
    for path, extension in task.storages.items():
        storage = storages.open(path, extension, where=str(path))
        for item in [] if storage is None else storages.all_of(storage):
            media.items.setdefault(item.key, item)
    _note_unused(storages, media, findings, annotated=bool(task.sets))
    return media


class _Storages:
    """Opens each storage once and looks up videos in it."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.opened: dict[tuple[Path, str], VideoStorage | None] = {}

    def open(self, path: Path, extension: str, *, where: str) -> VideoStorage | None:
        if (path, extension) not in self.opened:
            try:
                storage = self.opened[path, extension] = open_videos(path, extension=extension)
                if isinstance(storage, VideoFolder):
                    closed = closed_folders(path)
                    self.findings.add(
                        Finding("closed_folder", name, why, where) for name, why in closed
                    )
            except InputError as error:
                self.opened[path, extension] = None
                self.findings.add([Finding("missing", str(path), str(error), where)])
        return self.opened[path, extension]

    def named(self, storage: VideoStorage, data: ReadSet) -> list[Item]:
        """The videos of a set that exist."""
        # Missing ids get the reason that explains most of them.
        ids, where = data.video_ids(), str(data.source)
        missing = self._missing(storage, ids, where=where)
        hint = hint_of_missing(missing, storage) if missing else None
        reason = f"{storage.root}: {hint}" if hint else ""
        similar = {} if hint else similar_names(missing, present=set(ids), storage=storage)
        for name in missing:
            message = f"the id {why}" if (why := why_outside(name)) else reason
            if other := similar.get(name):
                message = f"is it {other}, which no annotation names?"
            self.findings.add([Finding("missing", name, message, where)])
        # Ids that name the same file are reported; each counts as present.
        absent, items, ids_of = set(missing), [], defaultdict(list)
        for name in ids:
            item = None if name in absent else self.item(storage, name, data.source.extension)
            if item is not None:
                items.append(item)
                ids_of[item.key].append(name)
        for _key, (first, *others) in ids_of.items():
            message = f"the file of {first}"
            self.findings.add(Finding("same_file", other, message, where) for other in others)
        return items

    def _missing(self, storage: VideoStorage, ids: Sequence[str], *, where: str) -> list[str]:
        try:
            return storage.missing(ids)
        except AmbiguousIdError as error:
            self.findings.add([Finding("ambiguous", str(storage.root), str(error), where)])
            return []

    def item(self, storage: VideoStorage, name: str, extension: str) -> Item | None:
        """A video that exists; None if its id is ambiguous."""
        path = None
        if isinstance(storage, VideoFolder | ImageFolder):
            try:
                file = storage.fetch(name)
            except AmbiguousIdError as error:
                self.findings.add([Finding("ambiguous", name, str(error), str(storage.root))])
                return None
            path = file if isinstance(file, Path) else None
        key = str(path or storage.root / name)
        of_image = path is not None and is_image(path) and path.is_file()
        return Item(key, name, storage.root, path, extension, is_image=of_image)

    def all_of(self, storage: VideoStorage) -> Iterator[Item]:
        """All videos that a storage holds."""
        try:
            names = storage.video_ids()
        except AmbiguousIdError as error:
            self.findings.add([Finding("ambiguous", str(storage.root), str(error), "")])
            return
        extension = storage.extension if isinstance(storage, VideoFolder) else ".mp4"
        for name in names:
            item = self.item(storage, name, extension)
            if item is not None:
                yield item


def similar_names(
    missing: Sequence[str], *, present: Container[str], storage: VideoStorage
) -> dict[str, str]:
    """Missing ids, and for each the most similar name of a video that no row names, if any."""
    names = storage.listed_names()
    if len(missing) > MAX_MISSING or len(names) > MAX_NAMES:
        return {}
    # Compare what comes after the last folder.
    unnamed = {}
    for name in names:
        stem = without_video_extension(name)
        if stem not in present and Path(stem).name not in present:
            unnamed[Path(stem).name] = name
    near = {
        one: get_close_matches(Path(one).name, unnamed, n=1, cutoff=MIN_LIKENESS) for one in missing
    }
    return {one: unnamed[stems[0]] for one, stems in near.items() if stems}


def _image(root: Path | None, name: str) -> Item:
    path = Path(name) if root is None else root / name
    return Item(str(path), name, root, path, "", is_image=True)


def _note_unused(storages: _Storages, media: Media, findings: Findings, *, annotated: bool) -> None:
    if not annotated:
        return
    for (path, _), storage in storages.opened.items():
        for item in [] if storage is None else storages.all_of(storage):
            if item.key not in media.sets_of:
                findings.add([Finding("unused", item.video_id, "", str(path))])


def closed_folders(root: Path) -> Iterator[tuple[str, str]]:
    """Folders below ``root`` that cannot be opened, with the reason."""
    closed: list[OSError] = []
    seen = set()
    for folder, names, _ in os.walk(root, onerror=closed.append, followlinks=True):
        names[:] = [name for name in names if not name.startswith(".")]
        with suppress(OSError):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder around it
                names.clear()
            seen.add((status.st_dev, status.st_ino))
    for error in closed:
        yield str(error.filename), str(error.strerror)
