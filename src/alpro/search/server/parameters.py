"""Parameters of requests, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from alpro.search.index import IndexedFile
from alpro.search.searcher import Example, Query
from alpro.search.server.media import MAX_PREVIEW_SECONDS

_MAX_TEXT = 10_000  # characters
_MAX_MOMENTS, _MAX_SKIPPED, _MAX_RERANKED = 200, 10_000, 200


def query_of(
    given: Mapping[str, str], *, top: Path, file_of: Callable[[str], IndexedFile]
) -> Query:
    """Read a query.

    Args:
        given: parameters of a request.
        top: folder that names are below.
        file_of: finds a file by its id.

    Raises:
        HTTPException: a value is out of range, or no file can be served by the id.
    """
    options: dict[str, Any] = {}
    for key in ("min_score", "since", "until", "min_seconds", "max_seconds"):
        if given.get(key):
            options[key] = _number(given, key)
    if given.get("folder"):
        options["folder"] = top / given["folder"]
    examples = []
    if given.get("like"):
        number, start, end = (*given["like"].split(":"), "", "")[:3]
        file, times = file_of(number), {"start": start, "end": end}
        first, last = (_number(times, key, least=0) if times[key] else None for key in times)
        if last is not None and last <= (first or 0.0):
            raise HTTPException(400, "like: ends before it begins")
        examples.append(Example(file.path, first, last))
    texts = [given.get(key, "")[:_MAX_TEXT] for key in ("q", "not")]
    return Query(
        texts=(texts[0],) if texts[0].strip() else (),
        negatives=(texts[1],) if texts[1].strip() else (),
        examples=tuple(examples),
        top=int(_number(given, "top", default=20, most=_MAX_MOMENTS, least=1)),
        skip=int(_number(given, "skip", default=0, most=_MAX_SKIPPED)),
        rerank=int(_number(given, "rerank", default=0, most=_MAX_RERANKED)),
        **options,
    )


def span_of(given: Mapping[str, str], file: IndexedFile) -> tuple[float, float]:
    """Read start and end of a part of a file, in seconds, at most as long as a preview.

    Raises:
        HTTPException: a value is missing or out of range.
    """
    start = _number(given, "t0", least=0, most=file.duration)
    end = _number(given, "t1")
    if end <= start:
        raise HTTPException(400, "t1 must be after t0")
    return start, min(end, start + MAX_PREVIEW_SECONDS)


def _number(
    given: Mapping[str, str],
    key: str,
    *,
    default: float | None = None,
    least: float = -1e12,
    most: float = 1e12,
) -> float:
    text = given.get(key) or default
    try:
        number = float("nan" if text is None else text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise HTTPException(400, f"{key}: a number from {least:g} to {most:g} is needed")
    return number
