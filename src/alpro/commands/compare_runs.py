"""Compare kinds of runs: ``alpro compare-runs --runs NAME DIR [DIR ...] --runs ...``.

Each ``DIR`` holds the results of one seed, of retrieval, question answering or both: the folder of
a run, of several runs, or of one evaluation. Prints Markdown: one row for each kind with the mean
over its seeds, then the gain of each kind over the first one, seed by seed.
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

RETRIEVAL_METRICS: dict[str, Callable[[Scores], float]] = {
    "R@1": lambda scores: scores["text2video"]["r1"],
    "R@5": lambda scores: scores["text2video"]["r5"],
    "R@1, VTC only": lambda scores: scores["text2video_vtc"]["r1"],
    "R@5, VTC only": lambda scores: scores["text2video_vtc"]["r5"],
}
ANSWERING_METRICS: dict[str, Callable[[Scores], float]] = {
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
        " order for each kind; a second table has the gains over the first kind",
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
        InputError: the kinds differ in their number of seeds, or folders in their metrics.
    """
    _check_numbers(folders)
    values = {name: [results_of(folder) for folder in of_kind] for name, of_kind in folders.items()}
    metrics = _common_metrics(folders, values)
    # First table: mean and range of each kind.
    head = ["runs", "seeds", *metrics]
    rows = [
        [name, str(len(runs)), *(_spread([run[each] for run in runs]) for each in metrics)]
        for name, runs in values.items()
    ]
    tables = [markdown_table(head, rows), NOTE]
    # Second table: gains over the first kind, seed by seed.
    (first, base), *others = values.items()
    if others:
        gains = [
            [name, *(_spread(_gains(runs, base, metric), sign="+") for metric in metrics)]
            for name, runs in others
        ]
        tables += [markdown_table([f"gain over {first}", *metrics], gains)]
        tables += ["Percentage points; mean over the seeds (lowest to highest)."]
    return "\n\n".join(tables)


def results_of(folder: Path) -> dict[str, float]:
    """Results in percent of the evaluations in and below a folder, by metric.

    Raises:
        InputError: there are none, two of the same task, or a file is damaged.
    """
    check_readable(folder)
    results: dict[str, float] = {}
    source_of: dict[str, Path] = {}
    # The folder of one evaluation, or every evaluation of the runs below.
    own = folder / "scores.json"
    paths = [own] if own.is_file() else sorted(folder.glob("**/results_*/*/scores.json"))
    for path in paths:
        for name, value in _read_scores(path).items():
            if name in source_of:
                raise InputError(
                    f"{folder} has two results of the same task, {source_of[name]} and {path}: "
                    f"pass the folder of one evaluation, such as {path.parent}"
                )
            source_of[name] = path
            results[name] = value
    if not results:
        raise InputError(f"no scores.json in {folder}/**/results_*/: evaluate the runs first")
    return results


def _read_scores(path: Path) -> dict[str, float]:
    """Results of one evaluation in percent, by metric."""

    def metrics_in(scores: Scores) -> dict[str, float]:
        metrics = ANSWERING_METRICS if "overall_acc" in scores else RETRIEVAL_METRICS
        return {name: float(metric(scores)) for name, metric in metrics.items()}

    return read_scores(path, metrics_in)


def _check_numbers(folders: Mapping[str, Sequence[Path]]) -> None:
    numbers = {name: len(of_kind) for name, of_kind in folders.items()}
    if len(set(numbers.values())) > 1 or 0 in numbers.values():
        message = ", ".join(f"{name!r} {number}" for name, number in numbers.items())
        raise InputError(
            f"--runs: each kind needs a name and the same number of folders, one for each seed; got"
            f" {message}"
        )


def _common_metrics(
    folders: Mapping[str, Sequence[Path]], values: Mapping[str, Sequence[Mapping[str, float]]]
) -> list[str]:
    """Metrics that all runs have, in the order of the tables."""
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
                f"only one of {first_folder} and {folder} has results of {odd}: evaluate both"
            )
    return [name for name in (*RETRIEVAL_METRICS, *ANSWERING_METRICS) if name in first]


def _gains(
    runs: Sequence[Mapping[str, float]], base: Sequence[Mapping[str, float]], metric: str
) -> list[float]:
    return [run[metric] - other[metric] for run, other in zip(runs, base, strict=True)]


def _spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean, and the range if there are several."""
    if len(values) == 1:
        return f"{values[0]:{sign}.1f}"
    return f"{mean(values):{sign}.1f} ({min(values):{sign}.1f} to {max(values):{sign}.1f})"
