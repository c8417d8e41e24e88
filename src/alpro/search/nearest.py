"""Approximate search by `usearch`, for indexes of millions of windows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alpro.errors import InputError
from alpro.installation import has_package
from alpro.search.index import Index
from alpro.training.atomic_io import write_atomically

logger = logging.getLogger(__name__)

DEFAULT_THRESHOLD = 2_000_000
"""Windows from which on the exact search takes longer than half a second on two cores."""
_ROWS_AT_ONCE = 1 << 16


def build_nearest(index: Index) -> Path:
    """Make the graph of an index as it is now, in place of earlier ones.

    Raises:
        InputError: usearch is not installed.
    """
    if not has_package("usearch"):
        raise InputError(
            "an index this large needs usearch for fast searches: `pip install usearch`; or give "
            "a larger --usearch_threshold"
        )
    from usearch.index import Index as Graph

    rows, vectors, path = index.windows().row, index.vectors(), _path_of(index)
    graph = Graph(ndim=index.settings.embed_dim, metric="ip", dtype="f16")
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        graph.add(some, vectors[some])
    write_atomically(path, lambda temporary: graph.save(str(temporary)))
    for old in {*index.folder.glob("nearest-*.usearch")} - {path}:
        old.unlink(missing_ok=True)
    return path


def open_nearest(index: Index) -> Any:
    """Map the graph of an index, an ``usearch.index.Index``; None without one of this state."""
    path = _path_of(index)
    if not path.exists():
        return None
    if not has_package("usearch"):
        logger.warning("%s is not used: `pip install usearch`", path)
        return None
    from usearch.index import Index as Graph

    return Graph.restore(str(path), view=True)


def _path_of(index: Index) -> Path:
    return index.folder / f"nearest-{index.generation()}.usearch"
