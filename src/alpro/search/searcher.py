"""Search: from texts, pictures and clips to moments of the indexed videos.

Shapes: ``N`` windows of the index, ``E`` width of the vectors.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import RLock

import numpy as np
import torch

import alpro
from alpro.datasets.decoding.base import VideoReadError
from alpro.errors import InputError, printable
from alpro.search.index import Index, IndexedFile, Windows
from alpro.search.moments import WINDOWS_PER_MOMENT, Span, best_positions, best_spans
from alpro.search.nearest import open_nearest

DEFAULT_TOP = 10
_NEIGHBOURS = 8  # windows beside one that usearch returns, to merge it with
_SAMPLED = 10_000  # windows that the median is taken of, where not all are scored
_PART = re.compile(r"#t=(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")  # as of media fragments


@dataclass(frozen=True, slots=True)
class Example:
    """A clip or a picture to search by."""

    path: Path
    start: float | None = None
    """Seconds."""
    end: float | None = None

    @classmethod
    def of(cls, text: str) -> Example:
        """Read ``clip.mp4``, ``clip.mp4#t=3,7`` (seconds) or ``photo.jpg``.

        Raises:
            InputError: there is no such file.
        """
        match = None if Path(text).exists() else _PART.search(text)
        path = Path(text[: match.start()] if match else text).expanduser()
        if not path.is_file():
            raise InputError(f"{printable(str(path))}: there is no such file to search by")
        times = match.groups() if match else (None, None)
        start, end = (None if one is None else float(one) for one in times)
        if end is not None and end <= (start or 0.0):
            raise InputError(f"{printable(text)}: the part ends before it begins")
        return cls(path, start, end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query; the vectors of texts and examples are added up."""

    texts: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    negatives: tuple[str, ...] = ()
    """Texts whose vectors are subtracted."""
    folder: Path | None = None
    """Only files in it."""
    top: int = DEFAULT_TOP
    """Number of moments."""
    skip: int = 0
    """Moments to pass over, as of earlier pages."""
    rerank: int = 0
    """Number of the best moments that the fusion encoder ranks again, by the texts."""
    min_score: float = -math.inf
    """Least cosine similarity."""
    since: float | None = None
    """Only files changed since, in seconds of the epoch."""
    until: float | None = None
    min_seconds: float = 0
    """Only files of at least this length."""
    max_seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Moment:
    """A part of a file that matches."""

    file: IndexedFile
    start: float
    """Seconds."""
    end: float
    peak: tuple[float, float]
    """Start and end of the window that matches best."""
    score: float
    """Cosine similarity of that window and the query."""
    match: float | None = None
    """Probability by the fusion encoder that it matches; None if it was not asked."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Answer to a query."""

    moments: list[Moment]
    """Best first."""
    floor: float
    """Median score of all windows: a moment near it has nothing to do with the query."""
    num_windows: int
    num_files: int
    seconds: float
    """That the search took."""


class Searcher:
    """Search in an index, which others may write to meanwhile; threads take turns."""

    def __init__(self, index: Index, load: Callable[[], alpro.Model]) -> None:
        """Open a search.

        Args:
            index: the index.
            load: loads its model, when it is first needed.
        """
        self.index, self._load = index, load
        self._turn = RLock()
        self._revision: tuple[int, int] | None = None
        self._files: dict[int, IndexedFile] = {}

    @cached_property
    def model(self) -> alpro.Model:
        """The index's model.

        Raises:
            InputError: it is another one than the index was made with.
        """
        model, settings = self._load(), self.index.settings
        if model.fingerprint != settings.fingerprint:
            raise InputError(
                f"{self.index.folder}: was made with {settings.model}, as it was then; the model "
                "that is there now has other weights or settings. Name the one of the index with "
                "--model, or index again elsewhere."
            )
        return model

    def vector_of(self, query: Query) -> np.ndarray:
        """(E,) float32 of length 1, for the texts and examples of a query.

        Raises:
            InputError: the query has none, or a file of it cannot be read.
        """
        texts = [text.strip() for text in query.texts if text.strip()]
        negatives = [text.strip() for text in query.negatives if text.strip()]
        if not (texts or negatives or query.examples):
            raise InputError("nothing to search for: give a text, or an example with --like")
        total = np.zeros(self.index.settings.embed_dim, np.float32)
        for sign, some in ((1, texts), (-1, negatives)):
            if some:
                total += sign * np.asarray(self.model.encode_text(some)).sum(axis=0)
        for one in query.examples:
            total += np.asarray(self.model.encode_video(one.path, start=one.start, end=one.end))
        return total / max(float(np.linalg.norm(total)), 1e-6)

    def search(self, query: Query) -> SearchResult:
        """Find the moments that match best.

        Raises:
            InputError: the query says nothing, or a file of it cannot be read.
        """
        begin = time.monotonic()
        with self._turn:
            result = self.search_vector(self.vector_of(query), query)
            if query.rerank:
                result = replace(result, moments=self._reranked(result.moments, query))
            moments = result.moments[query.skip : query.skip + query.top]
            return replace(result, moments=moments, seconds=time.monotonic() - begin)

    def search_vector(self, vector: np.ndarray, query: Query) -> SearchResult:
        """Find the moments that are nearest to an (E,) float32 vector of length 1.

        Those of earlier pages are among them, and as many as are to be ranked again.
        """
        begin, most = time.monotonic(), query.skip + max(query.top, query.rerank)
        with self._turn:
            while True:
                self._refresh()
                revision, is_wanted = self._revision, self._is_wanted(query)
                scores, floor = self._scores(vector, is_wanted, num_best=most * WINDOWS_PER_MOMENT)
                if self.index.revision() == revision:  # else rows may have changed meanwhile
                    break
            spans = best_spans(
                scores, self._windows, floor=floor, most=most, lowest=max(query.min_score, -2.0)
            )
            return SearchResult(
                [self._moment(scores, one) for one in spans],
                floor=floor,
                num_windows=int(is_wanted.sum()),
                num_files=len(self._files),
                seconds=time.monotonic() - begin,
            )

    def _refresh(self) -> None:
        """Read the tables again, if somebody has written."""
        revision = self.index.revision()
        if revision != self._revision:
            self._windows: Windows = self.index.windows()
            self._files = {one.id: one for one in self.index.files()}
            self._vectors = self.index.vectors()
            self._nearest = open_nearest(self.index)
            self._revision = revision

    def _scores(
        self, vector: np.ndarray, is_wanted: np.ndarray, *, num_best: int
    ) -> tuple[np.ndarray, float]:
        """(N,) float32 cosine similarities, and their median.

        Those of windows that are not wanted, or not among the best by the approximate index, are
        minus infinity. The best ones are exact, others are rounded to float16 and no higher.
        """
        rows = self._windows.row
        if not len(rows):
            return np.zeros(0, np.float32), 0.0
        if self._nearest is not None and is_wanted.all():
            # Windows beside one another share frames: a share of the best ones leads to all.
            near = self._nearest.search(vector.astype(np.float16), num_best // _NEIGHBOURS)
            is_near = np.isin(rows, near.keys.astype(np.int64))
            best = np.flatnonzero(np.convolve(is_near, np.ones(2 * _NEIGHBOURS + 1), "same") > 0)
            scores = np.full(len(rows), -np.inf, np.float32)
            sample = np.random.default_rng(0).integers(len(rows), size=_SAMPLED)
            floor = np.median(self._vectors[rows[sample]].astype(np.float32) @ vector)
        else:
            # The only product of float16 vectors that is as fast as memory is PyTorch's.
            product = torch.mv(torch.from_numpy(self._vectors), torch.from_numpy(vector).half())
            scores = product.float().numpy()[rows]
            floor = np.median(scores)
            scores[~is_wanted] = -np.inf
            best = best_positions(scores, num_best)
            best = best[is_wanted[best]]
        exact = self._vectors[rows[best]].astype(np.float32) @ vector
        np.minimum(scores, exact.min(initial=np.inf), out=scores)
        scores[best] = exact
        return scores, float(floor)

    def _is_wanted(self, query: Query) -> np.ndarray:
        """(N,) bool, windows of the files that a query is about."""
        folder = None if query.folder is None else Path(os.path.abspath(query.folder))
        since = -math.inf if query.since is None else query.since
        until = math.inf if query.until is None else query.until
        wanted = {
            number
            for number, file in self._files.items()
            if (folder is None or file.path.is_relative_to(folder))
            and since <= file.state.mtime_ns / 1e9 <= until
            and query.min_seconds <= file.duration <= query.max_seconds
        }
        if len(wanted) == len(self._files):
            return np.ones(len(self._windows.file), bool)
        return np.isin(self._windows.file, list(wanted))

    def _moment(self, scores: np.ndarray, span: Span) -> Moment:
        file = self._files[int(self._windows.file[span.peak])]
        number, settings = self._windows.number, self.index.settings
        (start, _), peak, (_, end) = (
            settings.span(int(number[place]), duration=file.duration)
            for place in (span.first, span.peak, span.last)
        )
        return Moment(file, start, end, peak, float(scores[span.peak]))

    def _reranked(self, moments: Sequence[Moment], query: Query) -> list[Moment]:
        """Rank the best moments again, by the texts and the frames of their best windows."""
        from alpro.datasets.decoding.windows import WindowReader  # imports PyAV

        if not query.texts:
            raise InputError("--rerank compares texts with videos: give a text")
        reader, settings = WindowReader(), self.index.settings
        best, matched = moments[: query.rerank], []
        try:
            for one in best:
                plan = self.model.window_plan(
                    window=settings.window,
                    stride=settings.stride,
                    start=one.peak[0],
                    end=one.peak[1],
                )
                try:
                    frames = next(reader.read(one.file.path, plan=plan)).frames
                except VideoReadError as error:  # it has changed, or is gone
                    raise InputError(f"{one.file.name}: {error}. Index again.") from error
                score = self.model.match_frames(query.texts, frames[None]).mean()
                matched.append(replace(one, match=float(score)))
        finally:
            reader.close()
        matched.sort(key=lambda one: -(one.match or 0.0))
        return [*matched, *moments[query.rerank :]]
