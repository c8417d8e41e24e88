"""Search an index: ``alpro search "a dog jumps over a fence"``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from alpro.commands.cli import DefaultsShown, any_path_flag, exit_code_of, not_negative, positive
from alpro.commands.index import DEFAULT_INDEX, clock
from alpro.errors import InputError, printable
from alpro.search.answers import announced, answer_of, identity_of

if TYPE_CHECKING:
    from alpro.search.index import Index

SERVER_SECONDS = 60.0  # that a running server may take


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _search(flags))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro search",
        description="Find moments of the indexed videos by text, picture or clip.",
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("text", nargs="*", help="what to find; several texts are added up")
    add("--index", type=any_path_flag, default=Path(DEFAULT_INDEX), help="folder of the index")
    add(
        "--like",
        action="append",
        default=[],
        metavar="FILE",
        help="a picture, a clip, or seconds 3 to 7 of one (clip.mp4#t=3,7), to find what is alike",
    )
    add(
        "--not",
        action="append",
        default=[],
        dest="negatives",
        metavar="TEXT",
        help="text of what not to find",
    )
    add("--in", type=any_path_flag, dest="folder", metavar="DIR", help="only videos in this folder")
    add("--top", type=positive, default=10, help="number of moments")
    add(
        "--rerank",
        type=not_negative,
        default=0,
        help="rank so many of the best again, by the fusion encoder: slower and better",
    )
    add("--min-score", type=float, help="least similarity of a moment")
    add("--json", action="store_true", help="print JSON")
    add("--no_server", action="store_true", help="do not ask a running `alpro serve`")
    add("--model", type=any_path_flag, help="folder of the index's model, if it has moved")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to encode")
    return parser


def _search(flags: argparse.Namespace) -> None:
    from alpro.search.index import Index

    with Index(flags.index) as index:
        answer = None if flags.no_server else _asked(flags, index)
        if answer is None:
            answer = _found(flags, index)
        for moment in answer["moments"]:
            file = index.file(moment["file"])
            moment["path"] = "" if file is None else str(file.path)
    print(json.dumps(answer, indent=2) if flags.json else as_text(answer))


def _found(flags: argparse.Namespace, index: Index) -> dict[str, Any]:
    """Search here, which takes some seconds to load the model."""
    import alpro
    from alpro.search.searcher import Example, Query, Searcher

    query = Query(
        texts=tuple(flags.text),
        examples=tuple(map(Example.of, flags.like)),
        negatives=tuple(flags.negatives),
        folder=flags.folder,
        top=flags.top,
        rerank=flags.rerank,
        **({} if flags.min_score is None else {"min_score": flags.min_score}),
    )
    model = flags.model or index.settings.model
    searcher = Searcher(index, lambda: alpro.load(model, device=flags.device))
    return answer_of(searcher.search(query))


def _asked(flags: argparse.Namespace, index: Index) -> dict[str, Any] | None:
    """Ask the server of the index; None if there is none, or the query is not simple.

    Raises:
        InputError: the server refuses the query.
    """
    server = announced(index.folder)
    is_simple = len(flags.text) == 1 and len(flags.negatives) <= 1 and not flags.like
    if server is None or not is_simple or flags.folder or flags.model:
        return None
    url, token = server
    values = {
        "index": identity_of(index.folder),
        "q": flags.text[0],
        "not": "".join(flags.negatives),
        "top": flags.top,
        "rerank": flags.rerank,
        "min_score": "" if flags.min_score is None else flags.min_score,
    }
    request = Request(f"{url}/api/search?{urlencode(values)}")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=SERVER_SECONDS) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except HTTPError as error:
        if error.code != HTTPStatus.BAD_REQUEST:
            return None
        raise InputError(json.load(error)["error"]) from error
    except (OSError, ValueError):  # it has ended without a word, or another program answers
        return None


def as_text(answer: Mapping[str, Any]) -> str:
    """Moments for reading, grouped by file."""
    files: dict[str, list[str]] = {}
    for one in answer["moments"]:
        files.setdefault(one["path"], []).append(_line(one))
    lines = [line for path, some in files.items() for line in (printable(path), *some)]
    counts = f"{answer['num_windows']:,} windows of {answer['num_files']:,} files"
    floor = f"a score of {answer['floor']:.3f} is the median of all"
    lines.append(f"{counts} searched in {answer['seconds']:.2f} s; {floor}")
    return "\n".join(lines)


def _line(moment: Mapping[str, Any]) -> str:
    span = f"{clock(moment['start'])} - {clock(moment['end'])}"
    match = "" if moment["match"] is None else f"  match {moment['match']:.2f}"
    return f"  {moment['score']:.3f}  {span}{match}"
