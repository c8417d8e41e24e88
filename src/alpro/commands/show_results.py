"""Show results in tables: ``alpro show-results --output_dir DIR [DIR ...]``.

Reads every ``results_*/*/scores.json`` of the folders and prints Markdown: of retrieval one row per
evaluation, text to video; of question answering one row per answer type and one column of
accuracies per evaluation, so that runs can be put side by side.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpro.commands.cli import exit_code_of, path_flag
from alpro.commands.gallery.results import check_readable, markdown_table, read_scores
from alpro.errors import InputError
from alpro.training.run_directory import read_stored

METRICS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medianR": "median rank"}
RANKINGS = {"text2video": "re-ranked by VTM", "text2video_vtc": "VTC only"}
ALL = "overall"
"""What the accuracy of all questions goes by in ``scores.json``."""
LOST = {
    "num_unanswerable_questions": "could not be right (answers outside the map)",
    "num_left_out_questions": "left out (unreadable videos)",
}
"""Keys of the protocol that count questions."""

Scores = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="alpro show-results",
        description="Show the results of runs in tables.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output_dir",
        type=path_flag,
        required=True,
        nargs="+",
        help="of a run with results; several are shown side by side",
    )
    flags = parser.parse_args(arguments)
    return exit_code_of(lambda: print(results_tables(flags.output_dir)))


def results_tables(output_dirs: Sequence[Path]) -> str:
    """The tables of all evaluations below some runs' folders, by name.

    Raises:
        InputError: if there are none.
    """
    retrieval: dict[Path, Scores] = {}
    answering: dict[tuple[str, str], dict[Path, Scores]] = defaultdict(dict)
    for folder in [folder for output_dir in output_dirs for folder in _evaluations(output_dir)]:
        scores = _read_scores(folder / "scores.json")
        if "overall_acc" in scores:
            answering[_questions(scores)][folder] = scores
        else:
            retrieval[folder] = scores
    tables = [_retrieval_table(retrieval, output_dirs=output_dirs)] if retrieval else []
    for (questions, _), scores_of in answering.items():
        tables.append(f"{questions}: accuracy in %\n\n{_answers_table(scores_of)}")
        if lost := _lost_questions(scores_of):
            tables.append(lost)
    return "\n\n".join(tables)


def _read_scores(path: Path) -> Scores:
    """The scores of an evaluation, of which tables can be made."""

    def tried(scores: Scores) -> Scores:
        if "overall_acc" in scores:
            _questions(scores)
            _answers_table({path: scores})
            _lost_questions({path: scores})
        else:
            _retrieval_table({path: scores}, output_dirs=[])
        return scores

    return read_scores(path, tried)


def _evaluations(output_dir: Path) -> list[Path]:
    if not output_dir.is_dir():
        raise InputError(f"--output_dir: there is no folder {output_dir}")
    check_readable(output_dir)
    folders = sorted(file.parent for file in output_dir.glob("results_*/*/scores.json"))
    if not folders:
        script = read_stored(output_dir / "log/args.json").get("script", "")
        if str(script).startswith("src/pretrain/"):
            raise InputError(
                f"{output_dir} is a pretraining run, which has no results of a task: see its "
                f"losses in {output_dir / 'log'} (TensorBoard), or finetune from its checkpoint"
            )
        raise InputError(f"no scores.json in {output_dir}/results_*/: evaluate the run first")
    return folders


def _questions(scores: Scores) -> tuple[str, str]:
    """Protocol of an evaluation; those with equal values may stand side by side."""
    totals = {kind: total for kind, (_, total) in scores["counts"].items()}
    return scores["protocol"]["annotations"], json.dumps([totals, scores["majority"]])


def _retrieval_table(scores_of: dict[Path, Scores], *, output_dirs: Sequence[Path]) -> str:
    """One row for each ranking that an evaluation has, with the R@1 of a random order."""
    head = ["results", "text to video", "captions", "videos", "chance R@1", *METRICS.values()]
    rows = []
    for folder, scores in scores_of.items():
        name = folder.relative_to(output_dirs[0]) if len(output_dirs) == 1 else folder
        protocol = scores["protocol"]
        rankings = RANKINGS if protocol["matching"] else {"text2video_vtc": "VTC only"}
        for ranking, title in rankings.items():
            numbers = [f"{scores[ranking][metric]:.1f}" for metric in METRICS]
            counts = [str(protocol[key]) for key in ("num_captions", "num_videos")]
            chance = f"{100 / protocol['num_videos']:.3g}"
            rows.append([str(name), title, *counts, chance, *numbers])
    return markdown_table(head, rows)


def _answers_table(scores_of: dict[Path, Scores]) -> str:
    """One row for each answer type, one column for each evaluation of the same questions.

    The last row counts right answers among the five best.
    """
    scores = next(iter(scores_of.values()))
    totals = {kind: total for kind, (_, total) in scores["counts"].items()}
    head = ["answer type", "share", "questions", "majority", *_short_names(list(scores_of))]
    rows = [
        [
            "all" if kind == ALL else kind,
            _percent(totals[kind], totals[ALL]),
            str(totals[kind]),
            f"{scores['majority'][f'{kind}_acc']:.2f}",
            *(_percent(*each["counts"][kind]) for each in scores_of.values()),
        ]
        for kind in [*(kind for kind in totals if kind != ALL), ALL]
    ]
    top5 = [f"{each['top5_acc']:.2f}" for each in scores_of.values()]
    return markdown_table(head, [*rows, ["all, top-5", "", "", "", *top5]])


def _lost_questions(scores_of: dict[Path, Scores]) -> str:
    """One line for each evaluation that had questions it could not count in full."""
    lines = []
    for name, scores in zip(_short_names(list(scores_of)), scores_of.values(), strict=True):
        lost = {words: scores["protocol"][key] for key, words in LOST.items()}
        parts = [f"{count} {words}" for words, count in lost.items() if count]
        if parts:
            lines.append(f"{name}: of the questions {', '.join(parts)}")
    return "\n".join(lines)


def _percent(correct: int, total: int) -> str:
    """As precise as the percentages in ``scores.json``, so that equal ones read alike."""
    return f"{100 * correct / total:.2f}"


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by those parts of their paths in which they differ."""
    parts = [folder.parts for folder in folders]
    if len({len(each) for each in parts}) > 1:
        return [str(folder) for folder in folders]
    differ = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    if not any(differ):
        return [folder.name for folder in folders]
    return [
        "/".join(part for part, different in zip(each, differ, strict=True) if different)
        for each in parts
    ]
