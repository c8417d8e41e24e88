"""What tools share: where results of an evaluation are, what they hold, and showing them."""

from __future__ import annotations

import argparse
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from alpro.commands.cli import at_most, exit_code_of, path_flag
from alpro.errors import InputError
from alpro.training.writable import check_output_file
from alpro.user_files import UnreadableFileError, read_json, why_unreadable

MAX_FRAMES = 256  # of a clip in a picture, which they make 15,000 pixels wide

Record = TypeVar("Record")

_COMMANDS = {"results.json": "contact-sheet", "results_all.json": "answer-sheet"}
"""File of results -> the command that draws a picture of them."""
Result = TypeVar("Result")


def add_result_flags(parser: argparse.ArgumentParser, *, output_dir: Path, picture: str) -> None:
    """Add the flags that all pictures of results go by.

    Args:
        parser: of the tool.
        output_dir: default of the flag.
        picture: name of the PNG, where none is given.
    """
    add = parser.add_argument
    add("--output_dir", type=path_flag, default=output_dir, help="of a run with results")
    add("--results_dir", type=path_flag, help="else the newest in output_dir")
    add("--videos", type=path_flag, help="folder, LMDB or tar shards, else as the evaluation noted")
    add(
        "--num_frames",
        type=at_most(MAX_FRAMES, lowest=1),
        default=8,
        help="frames shown per clip, evenly spaced",
    )
    add("--picture", type=path_flag, help=f"the PNG to write, else {picture} in output_dir")


def run_picture_tool(
    flags: argparse.Namespace, *, draw: Callable[[argparse.Namespace], Image.Image], picture: str
) -> int:
    """Draw and save a picture, or say what is wrong with the input; returns the exit code.

    Args:
        flags: of the tool, those of `add_result_flags` among them.
        draw: makes the picture.
        picture: its name, where the flags give none.
    """
    path = flags.picture or flags.output_dir / picture

    def work() -> None:
        check_picture(path)
        save_picture(draw(flags), path)
        print(f"picture: {path}")

    return exit_code_of(work)


def check_picture(path: Path) -> None:
    """Check, before it is drawn, that a picture can be written where ``--picture`` says.

    Raises:
        InputError: if it cannot.
    """
    check_output_file(path, named_by="--picture")
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise InputError(f"cannot write {path}: pictures end in .png; give another --picture")


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture where ``--picture`` says.

    Raises:
        InputError: if it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; give another --picture") from error


def chosen_results(flags: argparse.Namespace, *, name: str) -> Path:
    """The newest file with this name in or below the folder that the flags give.

    Raises:
        InputError: if there is none.
    """
    folder = flags.results_dir or flags.output_dir
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    check_readable(folder)
    found = sorted(folder.glob(f"**/{name}"), key=lambda path: path.stat().st_mtime)
    if not found:
        for other, command in _COMMANDS.items():
            if other != name and any(folder.glob(f"**/{other}")):
                raise InputError(f"{folder} has results of another task, for alpro {command}")
        raise InputError(
            f"no {name} in {folder}: run an inference first, or give another --results_dir"
        )
    return found[-1]


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


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)
