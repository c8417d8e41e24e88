"""Show all results of a run in one table: ``python -m src.tools.show_results --output_dir DIR``.

Reads every ``results_*/*/scores.json`` of the folder and prints a Markdown table, text to video.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from src.errors import USER_ERROR_EXIT_CODE, InputError

METRICS = {"r1": "R@1", "r5": "R@5", "r10": "R@10", "medianR": "median rank"}
RANKINGS = {"text2video": "re-ranked by VTM", "text2video_vtc": "VTC only"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.show_results",
        description="Show all results of a run in one table.",
        allow_abbrev=False,
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="of a run with results")
    try:
        print(results_table(parser.parse_args(arguments).output_dir))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    return 0


def results_table(output_dir: Path) -> str:
    """The table of all evaluations below a run's folder, by name.

    Raises:
        InputError: if there are none.
    """
    if not output_dir.is_dir():
        raise InputError(f"--output_dir: there is no folder {output_dir}")
    folders = sorted(file.parent for file in output_dir.glob("results_*/*/scores.json"))
    if not folders:
        raise InputError(f"no scores.json in {output_dir}/results_*/: evaluate the run first")
    head = ["results", "text to video", "captions", *METRICS.values()]
    rows = [row for folder in folders for row in _rows(folder, output_dir=output_dir)]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *rows]
    ]
    return "\n".join(lines)


def _rows(folder: Path, *, output_dir: Path) -> list[list[str]]:
    """One row for each ranking that an evaluation has."""
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    name, protocol = str(folder.relative_to(output_dir)), scores["protocol"]
    rankings = RANKINGS if protocol["matching"] else {"text2video_vtc": "VTC only"}
    return [
        [
            *(name, title, str(protocol["num_captions"])),
            *(f"{scores[ranking][metric]:.1f}" for metric in METRICS),
        ]
        for ranking, title in rankings.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
