"""Compare kinds of runs: ``alpro compare-runs --runs NAME DIR [DIR ...] --runs ...``.

Each ``DIR`` holds what was trained with one seed: results of retrieval, of question answering or of
both, in it or below it. Prints Markdown: one row for each kind with the mean over its seeds, then
what each kind has more than the first one, seed by seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from alpro.commands.cli import exit_code_of, path_flag
from alpro.commands.gallery.results import check_readable, markdown_table, read_scores
from alpro.errors import InputError

Scores = dict[str, Any]

RETRIEVAL_MEASURES: dict[str, Callable[[Scores], float]] = {
    "R@1": lambda scores: scores["text2video"]["r1"],
    "R@5": lambda scores: scores["text2video"]["r5"],
    "R@1, VTC only": lambda scores: scores["text2video_vtc"]["r1"],
    "R@5, VTC only": lambda scores: scores["text2video_vtc"]["r5"],
}
ANSWERING_MEASURES: dict[str, Callable[[Scores], float]] = {
    "accuracy": lambda scores: scores["overall_acc"],
}
NOTE = "Percent; mean over the seeds (lowest to highest)."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="alpro compare-runs",
        description="Compare kinds of runs, each over the same seeds.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--runs",
        required=True,
        nargs="+",
        action="append",
        metavar=("NAME", "DIR"),
        help="a kind of runs: its name in the table, then one folder for each seed, in the same"
        " order for each kind; what the others have more than the first kind is told, too",
    )
    flags = parser.parse_args(arguments)
    return exit_code_of(lambda: print(compare_runs(_kinds(flags.runs))))


def _kinds(runs: Sequence[Sequence[str]]) -> dict[str, list[Path]]:
    """Name of each kind -> its folders, from the values of the flag."""
    try:
        kinds = {name: [path_flag(folder) for folder in folders] for name, *folders in runs}
    except argparse.ArgumentTypeError as error:
        raise InputError(f"--runs: {error}") from error
    if len(kinds) < len(runs):
        raise InputError("--runs: two kinds have the same name")
    return kinds


def compare_runs(folders: Mapping[str, Sequence[Path]]) -> str:
    """The tables that compare kinds of runs.

    Args:
        folders: name of each kind -> its folders, one for each seed.

    Raises:
        InputError: kinds do not have the same number of seeds, or a folder has other results than
            the first one.
    """
    _check_numbers(folders)
    values = {name: [measured(folder) for folder in of_kind] for name, of_kind in folders.items()}
    measures = _common_measures(folders, values)
    head = ["runs", "seeds", *measures]
    rows = [
        [name, str(len(runs)), *(_spread([run[each] for run in runs]) for each in measures)]
        for name, runs in values.items()
    ]
    tables = [markdown_table(head, rows), NOTE]
    (first, base), *others = values.items()
    if others:
        gains = [
            [name, *(_spread(_gains(runs, base, measure), sign="+") for measure in measures)]
            for name, runs in others
        ]
        tables += [markdown_table([f"more than {first}", *measures], gains)]
        tables += ["Percentage points; mean over the seeds (lowest to highest)."]
    return "\n\n".join(tables)


def measured(folder: Path) -> dict[str, float]:
    """What the evaluations in and below a folder measured: measure -> percent.

    Raises:
        InputError: there are none, two of the same task, or a file is not what it should be.
    """
    check_readable(folder)
    found: dict[str, float] = {}
    seen: dict[str, Path] = {}
    for path in sorted(folder.glob("**/results_*/*/scores.json")):
        for name, value in _read_scores(path).items():
            if name in seen:
                raise InputError(
                    f"{folder} has two results of the same task, {seen[name]} and {path}: name"
                    " folders with one of each"
                )
            seen[name] = path
            found[name] = value
    if not found:
        raise InputError(f"no scores.json in {folder}/**/results_*/: evaluate the runs first")
    return found


def _read_scores(path: Path) -> dict[str, float]:
    """What one evaluation measured: measure -> percent."""

    def measured_in(scores: Scores) -> dict[str, float]:
        measures = ANSWERING_MEASURES if "overall_acc" in scores else RETRIEVAL_MEASURES
        return {name: float(measure(scores)) for name, measure in measures.items()}

    return read_scores(path, measured_in)


def _check_numbers(folders: Mapping[str, Sequence[Path]]) -> None:
    numbers = {name: len(of_kind) for name, of_kind in folders.items()}
    if len(set(numbers.values())) > 1 or 0 in numbers.values():
        message = ", ".join(f"{name!r} {number}" for name, number in numbers.items())
        raise InputError(
            f"--runs: each kind needs a name and the same number of folders, one for each seed; got"
            f" {message}"
        )


def _common_measures(
    folders: Mapping[str, Sequence[Path]], values: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[str]:
    """What all have measured, in the order of the tables."""
    pairs = [
        (folder, run)
        for name in folders
        for folder, run in zip(folders[name], values[name], strict=True)
    ]
    first_folder, first = pairs[0]
    for folder, run in pairs:
        if run.keys() != first.keys():
            odd = ", ".join(sorted(run.keys() ^ first.keys()))
            raise InputError(
                f"of {first_folder} and {folder} only one has results of {odd}: evaluate both"
            )
    return [name for name in (*RETRIEVAL_MEASURES, *ANSWERING_MEASURES) if name in first]


def _gains(
    runs: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]], measure: str
) -> list[float]:
    return [run[measure] - other[measure] for run, other in zip(runs, base, strict=True)]


def _spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean, and the range if there are several."""
    if len(values) == 1:
        return f"{values[0]:{sign}.1f}"
    return f"{mean(values):{sign}.1f} ({min(values):{sign}.1f} to {max(values):{sign}.1f})"
