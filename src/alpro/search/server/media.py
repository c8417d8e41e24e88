"""Pictures and clips on demand: a few processes make them, clips are kept in the index's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import local
from typing import Any, TypeVar

from alpro.isolation.process import IsolatedProcess
from alpro.search.index import IndexedFile
from alpro.search.server.pictures import strip_of, write_preview
from alpro.training.atomic_io import write_atomically

Result = TypeVar("Result")

CACHE = "previews"
SECONDS, MEGABYTES = 120.0, 2048  # of a call
MAX_PREVIEW_SECONDS = 60.0
_PROCESSES = 2
_MAX_STRIPS = 512  # that are kept in memory, of about 10 kB


class Media:
    """Maker of strips and previews."""

    def __init__(self, folder: Path) -> None:
        self._cache = folder / CACHE
        # A process lives as long as the thread that started it.
        self._pool, self._own = ThreadPoolExecutor(_PROCESSES), local()
        self._strips: dict[tuple[Any, ...], bytes] = {}

    def strip(self, file: IndexedFile, start: float, end: float) -> bytes:
        """JPEG of the frames of a moment.

        Raises:
            VideoReadError: the file cannot be read.
            CallCutOffError: it takes too long or too much memory.
        """
        key = (file.id, file.state, start, end)
        if key not in self._strips:
            made = self._pool.submit(self._call, strip_of, file.path, start, end).result()
            while len(self._strips) >= _MAX_STRIPS:
                self._strips.pop(next(iter(self._strips)), None)
            self._strips[key] = made
        return self._strips[key]

    def preview(self, file: IndexedFile, start: float, end: float) -> Path:
        """H.264 clip of a moment, which every browser plays.

        Raises:
            VideoReadError: the file cannot be read.
            CallCutOffError: it takes too long or too much memory.
        """
        end = min(end, start + MAX_PREVIEW_SECONDS)
        name = f"{file.digest.hex()} {file.state} {start:.3f} {end:.3f}"
        path = self._cache / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.mp4"
        if not path.exists():
            self._pool.submit(self._write, path, file.path, start, end).result()
        return path

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)

    def _write(self, path: Path, video: Path, start: float, end: float) -> None:
        if not path.exists():  # another thread may have made it meanwhile
            write = partial(self._call, write_preview, video, start, end)
            write_atomically(path, write)

    def _call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        if not hasattr(self._own, "process"):
            self._own.process = IsolatedProcess(seconds=SECONDS, megabytes=MEGABYTES)
        result: Result = self._own.process.call(function, *arguments)
        return result
