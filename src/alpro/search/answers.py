"""Answers to queries as JSON values, the same from the command and from the server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpro.search.index import DATABASE

if TYPE_CHECKING:
    from alpro.search.searcher import SearchResult

SERVER = "server.json"
"""File of an index that says where it is served, and by which token."""


def answer_of(result: SearchResult) -> dict[str, Any]:
    """Return moments as JSON values; times in seconds, files by their ids."""
    return {
        "floor": result.floor,
        "num_windows": result.num_windows,
        "num_files": result.num_files,
        "seconds": result.seconds,
        "moments": [
            {
                "file": one.file.id,
                "duration": one.file.duration,
                "start": one.start,
                "end": one.end,
                "peak": list(one.peak),
                "score": one.score,
                "match": one.match,
            }
            for one in result.moments
        ],
    }


def identity_of(folder: Path) -> str:
    """Tell an index from all others, also from one that replaced it while its server runs."""
    state = (folder / DATABASE).stat()
    return f"{state.st_dev:x}-{state.st_ino:x}"


def announce(folder: Path, *, url: str, token: str | None) -> None:
    """Write where an index is served, for its owner only."""
    path = folder / SERVER
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": url, "token": token}, file)


def announced(folder: Path) -> tuple[str, str | None] | None:
    """Return URL and token of the server of an index; None if none is known."""
    try:
        value = json.loads((folder / SERVER).read_text())
        return value["url"], value["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
