"""Where the results of an evaluation are, and what was evaluated: flags that the tools share."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from src.errors import InputError


def add_result_flags(parser: argparse.ArgumentParser, *, output_dir: Path) -> None:
    """Add the flags that `chosen_results` and `recorded_path` go by."""
    add = parser.add_argument
    add("--output_dir", type=Path, default=output_dir, help="of a run with results")
    add("--results_dir", type=Path, help="else the newest in output_dir")
    add("--videos", type=Path, help="folder of the videos, else as the evaluation noted")


def positive(text: str) -> int:
    """A flag's value: a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def chosen_results(flags: argparse.Namespace, *, name: str) -> Path:
    """The newest file with this name in or below the folder that the flags give.

    Raises:
        InputError: if there is none.
    """
    folder = flags.results_dir or flags.output_dir
    found = sorted(folder.glob(f"**/{name}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"no {name} in {folder}: run an inference first, or give another --results_dir"
        )
    return found[-1]


def recorded_path(results: Path, key: str, *, flag: str) -> Path:
    """A path that the evaluation noted in the protocol of its ``scores.json``.

    Raises:
        InputError: if it noted none; ``flag`` is the remedy.
    """
    scores = results.with_name("scores.json")
    try:
        return Path(json.loads(scores.read_text(encoding="utf-8"))["protocol"][key])
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise InputError(f"{scores} does not tell what was evaluated: give {flag}") from error
