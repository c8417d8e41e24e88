"""Results of evaluations as the commands find and read them."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from alpro.commands.cli import DefaultsShown, at_most, path_flag
from alpro.datasets.annotations import sha256_of
from alpro.errors import InputError
from alpro.training.run_directory import read_stored
from alpro.user_files import UnreadableFileError, read_json, why_unreadable

MAX_FRAMES = 256  # of a clip in a picture, which they make 15,000 pixels wide

Record = TypeVar("Record")

_COMMANDS = {"results.json": "contact-sheet", "results_all.json": "answer-sheet"}
"""File of results -> the command that draws a picture of them."""
Result = TypeVar("Result")


def result_parser(
    command: str, description: str, *, output_dir: Path, picture: str
) -> argparse.ArgumentParser:
    """A parser with the flags that all galleries of results share.

    Args:
        command: its name.
        description: for its help.
        output_dir: default of the flag.
        picture: default name of the PNG.
    """
    parser = argparse.ArgumentParser(
        prog=f"alpro {command}",
        description=description,
        formatter_class=DefaultsShown,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output_dir", type=path_flag, default=output_dir, help="of a run with results")
    add(
        "--results_dir",
        type=path_flag,
        help="folder with scores.json, such as output/my_run/results_test/step_best_1_mean"
        " (default: the newest in output_dir)",
    )
    add("--videos", type=path_flag, help="folder, LMDB or tar shards, else as the evaluation noted")
    add(
        "--num_frames",
        type=at_most(MAX_FRAMES, lowest=1),
        default=8,
        help="frames shown per clip, evenly spaced",
    )
    add(
        "--picture",
        type=path_flag,
        help=f"the PNG to write, or a page (.html), else {picture} in output_dir",
    )
    return parser


def chosen_results(flags: argparse.Namespace, *, name: str) -> Path:
    """The newest file with this name in or below the folder that the flags give.

    Raises:
        InputError: if there is none.
    """
    folder = flags.results_dir or flags.output_dir
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    check_readable(folder)
    files = sorted(folder.glob(f"**/{name}"), key=lambda path: path.stat().st_mtime)
    if not files:
        for other, command in _COMMANDS.items():
            if other != name and any(folder.glob(f"**/{other}")):
                raise InputError(f"{folder} has results of another task, for alpro {command}")
        raise InputError(
            f"no {name} in {folder}: run an inference first, or give another --results_dir"
        )
    return files[-1]


def check_readable(folder: Path) -> None:
    """Check that results can be looked for in a folder of a run.

    Raises:
        InputError: it, or one of its folders of results, may not be read.
    """
    for each in (folder, *folder.glob("results_*")):
        if os.path.isdir(each) and not os.access(each, os.R_OK | os.X_OK):
            raise InputError(f"{each}: cannot be read: {os.strerror(errno.EACCES)}")


def read_records(
    results: Path, parse: Callable[[dict[str, Any]], Record], *, noun: str
) -> list[Record]:
    """Read a list of results.

    Args:
        results: JSON file.
        parse: makes something of each entry.
        noun: what the entries are, for messages.

    Raises:
        InputError: if the file holds something else.
    """
    try:
        return [parse(record) for record in read_json(results)]
    except UnreadableFileError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{results} is no list of {noun}: {error!r}") from error


def read_scores(path: Path, use: Callable[[Any], Result]) -> Result:
    """Read the scores of an evaluation, and use them.

    Args:
        path: their file.
        use: makes it.

    Raises:
        InputError: the file cannot be read, or something is missing in it.
    """
    if reason := why_unreadable(path):
        raise UnreadableFileError(path, reason)
    try:
        return use(read_json(path))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{path}: damaged, or not all scores of an evaluation are in it ({error!r}): evaluate"
            " the run anew"
        ) from error


def recorded_path(results: Path, key: str, *, flag: str) -> Path:
    """A path that the evaluation noted in the protocol of its ``scores.json``.

    Raises:
        InputError: if it noted none; ``flag`` is the remedy.
    """
    scores = results.with_name("scores.json")
    try:
        return Path(read_json(scores)["protocol"][key])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{scores} does not tell what was evaluated: give {flag}") from error


def check_annotations(results: Path, txt: Path, *, given: bool) -> None:
    """Check that captions are those of an evaluation, if it noted their SHA-256.

    Args:
        results: file in the folder of the evaluation.
        txt: the captions.
        given: by ``--txt``, not by the evaluation's protocol.

    Raises:
        InputError: they have another content.
    """
    scores = results.with_name("scores.json")
    protocol = read_stored(scores).get("protocol")
    noted = protocol.get("annotations_sha256") if isinstance(protocol, dict) else None
    if noted is None or why_unreadable(txt) or sha256_of(txt) == noted:
        return
    if given:
        raise InputError(
            f"--txt: {txt} is not the file of this evaluation (SHA-256 in {scores}): name that one,"
            " or evaluate again"
        )
    raise InputError(
        f"{txt} has changed since this evaluation (SHA-256 in {scores}): evaluate again, or name"
        " the former file with --txt"
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)
