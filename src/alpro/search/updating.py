"""Bringing an index up to date with its collection, alone or shared by several processes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from alpro.datasets.decoding.windows import STRIDE_SECONDS, WINDOW_SECONDS
from alpro.errors import InputError
from alpro.inference.model import Model
from alpro.search.collection import Collection, find_videos, share_of
from alpro.search.index import DATABASE, Index, IndexSettings
from alpro.search.index_writer import IndexWriter, check_same, is_being_written
from alpro.search.indexing import Advance, Changes, Indexed, changes_of, index_videos
from alpro.search.nearest import DEFAULT_THRESHOLD, build_nearest, open_nearest

PARTS = "parts"
"""Folder of an index with the indexes of processes that work on a part each."""


@dataclass(frozen=True, slots=True)
class Updated:
    """Work done by an update."""

    collection: Collection
    indexed: Indexed
    num_moved: int
    num_deleted: int
    num_unchanged: int


def settings_of(
    folder: Path, model: Model, *, name: str, window: float | None, stride: float | None
) -> IndexSettings:
    """Settings of an index that is there, or of a new one; None stands for its own, or defaults."""
    if not model.can_embed:
        raise InputError(f"{name}: embeds no videos. Name a model that was finetuned for retrieval")
    own = None
    if (folder / DATABASE).is_file():
        with Index(folder) as index:
            own = index.settings
    if window is None:
        window = own.window if own else WINDOW_SECONDS
    if stride is None:
        stride = own.stride if own else min(STRIDE_SECONDS, window)
    if not 0 < stride <= window:
        raise InputError(
            f"windows of {window:g} s every {stride:g} s: the stride must be above 0, and at most "
            "the window, else parts of the videos are in no window"
        )
    return IndexSettings(
        model=name,
        fingerprint=model.fingerprint,
        embed_dim=model.embed_dim,
        window=float(window),
        stride=float(stride),
    )


def update_index(
    folder: Path,
    roots: Sequence[Path],
    model: Model,
    settings: IndexSettings,
    *,
    exclude: Sequence[str] = (),
    retry: bool = False,
    part: tuple[int, int] | None = None,
    num_workers: int = 1,
    usearch_threshold: int = DEFAULT_THRESHOLD,
    advance: Advance | None = None,
) -> Updated:
    """Index what is new or changed, and take out what is gone.

    Args:
        folder: of the index; it is made if it is not there.
        roots: folders of videos, or videos.
        model: one that embeds videos.
        settings: of the index.
        exclude: patterns of paths to pass over.
        retry: try unreadable files again.
        part: number of this process, from 0, and how many share the work. Each writes an index of
            its own, which it adds to the common one in the end.
        num_workers: files that are decoded at once.
        usearch_threshold: number of windows from which on searches are approximate.
        advance: called after each window.

    Raises:
        InputError: there are no videos, or the index was made with other settings, cannot be read,
            or is being written by another process.
    """
    collection = find_videos(roots, exclude=exclude)
    work = partial(
        index_videos,
        encode=model.encode_frames,
        plan=model.window_plan(window=settings.window, stride=settings.stride),
        num_workers=num_workers,
        advance=advance,
    )
    # Take in what processes of another division have left, then compare.
    with IndexWriter(folder, settings, waits=part is not None) as writer:
        for left in sorted((folder / PARTS).glob("*-of-*")):
            is_ours = part is not None and left.name.endswith(f"-of-{part[1]}")
            if not is_ours and not is_being_written(left):
                if (left / DATABASE).is_file():  # else it was killed before it made one
                    take_in(writer, left)
                shutil.rmtree(left)
        changes = _follow(writer, collection, roots, retry=retry)
        new = {path: collection.videos[path] for path in changes.new}
        if part is None:
            indexed = work(writer, new)
            _refresh_nearest(writer, usearch_threshold)
    # A process of several writes by itself until all its files are done.
    if part is not None:
        share = share_of(collection.videos, part=part[0], num_parts=part[1])
        own = folder / PARTS / f"{part[0] + 1}-of-{part[1]}"
        with IndexWriter(own, settings) as writer:
            wanted = share.keys() & new.keys()
            missing = _follow(writer, collection, roots, retry=retry).new
            indexed = work(writer, {path: share[path] for path in missing if path in wanted})
        with IndexWriter(folder, settings, waits=True) as writer:
            take_in(writer, own)
            shutil.rmtree(own)
            _refresh_nearest(writer, usearch_threshold)
    return Updated(
        collection,
        indexed,
        num_moved=len(changes.moved),
        num_deleted=len(changes.deleted),
        num_unchanged=len(collection.videos) - len(changes.new) - len(changes.moved),
    )


def _follow(
    writer: IndexWriter, collection: Collection, roots: Sequence[Path], *, retry: bool
) -> Changes:
    """Note in an index what was moved and deleted."""
    changes = changes_of(writer.files(), collection, roots=roots, retry=retry)
    for file, path in changes.moved:
        writer.rename(file.id, path)
    writer.forget([file.id for file in changes.deleted])
    return changes


def _refresh_nearest(writer: IndexWriter, threshold: int) -> None:
    """Make the graph for approximate searches, where there are enough windows."""
    if len(writer.windows().row) >= threshold and open_nearest(writer) is None:
        build_nearest(writer)


def take_in(writer: IndexWriter, folder: Path) -> int:
    """Copy the files that another index has to the end into one; returns their number.

    Raises:
        InputError: the other one was made with other settings, or cannot be read.
    """
    num_files = 0
    with Index(folder) as other:
        check_same(folder, other.settings, writer.settings)
        known = {one.path: one for one in writer.files()}
        windows, vectors = other.windows(), other.vectors()
        for one in other.files():
            same = known.get(one.path)
            if not one.is_complete or (same and same.is_complete and same.state == one.state):
                continue
            first, end = np.searchsorted(windows.file, (one.id, one.id + 1))
            file = writer.begin(one.path, one.state, one.digest)
            writer.add(file, vectors[windows.row[first:end]], duration=one.duration)
            writer.finish(file, reason=one.reason)
            num_files += 1
    return num_files
