"""Check data before training on it: ``alpro check-data --config FILE``.

Reads every annotation of a config's sets and inspects every video and image they name, or all
videos of a folder, LMDB or shards (``--videos``). Writes ``report.html``, ``report.json`` and
``videos.tsv``, a line for each video. The exit code is 0 without problems, 1 with problems, 2 for
wrong use.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from alpro.commands.cli import (
    MAX_WORKERS,
    any_path_flag,
    at_most,
    config_flag,
    exit_code_of,
    not_negative,
)
from alpro.errors import FAILURE_EXIT_CODE, InputError
from alpro.installation import has_package
from alpro.tasks.registry import TASKS

DEFAULT_OUTPUT = Path("output/data_check")
FORMER_KINDS = {"qa": "question_answering", "pretrain": "pretraining"}  # in earlier versions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    flags, config_flags = parser.parse_known_args(arguments)
    if config_flags and flags.config is None:
        parser.error(f"unrecognized arguments: {' '.join(config_flags)}")
    if flags.annotations and flags.config is not None:
        parser.error("--annotations goes with --videos; a config names its annotations itself")
    problems: list[int] = []

    def work() -> None:
        if not has_package("av"):
            raise InputError("check-data reads videos with PyAV: `pip install av`")
        from alpro.commands.check_data.run import check  # --help must not wait for it

        problems.append(check(flags, config_flags))

    code = exit_code_of(work, can_resume=True)
    return code or (FAILURE_EXIT_CODE if any(problems) else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro check-data",
        description="Check annotations and videos before training on them. Further flags are those"
        " of the config's script, such as --num_frm 8.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", type=config_flag, help="of pretraining or of any task: all its sets"
    )
    what.add_argument(
        "--videos", type=any_path_flag, help="folder, LMDB or shards: all videos in it"
    )
    add(
        "--annotations",
        type=any_path_flag,
        nargs="+",
        default=[],
        help="with --videos: files whose rows name them",
    )
    add(
        "--kind",
        type=lambda kind: FORMER_KINDS.get(kind, kind),
        choices=TASKS,
        help="task of --config (default: derived from its keys)",
    )
    add(
        "--output",
        type=any_path_flag,
        default=DEFAULT_OUTPUT,
        help=f"folder (default: {DEFAULT_OUTPUT})",
    )
    add("--full", action="store_true", help="decode every frame, not only those training would")
    add("--retry_failed", action="store_true", help="retry files that could not be read before")
    add(
        "--n_workers",
        "--workers",
        dest="workers",
        type=at_most(MAX_WORKERS, lowest=1),
        default=os.cpu_count() or 1,
        help="processes (default: one per core)",
    )
    add(
        "--seconds",
        type=not_negative,
        help="time limit for a video, 0 for none; a higher one retries those that exceeded it"
        " (default: the config's decode_timeout, else 60; with --full ten times that)",
    )
    add(
        "--megabytes",
        type=not_negative,
        help="memory limit of a video, 0: none (default: the config's decode_memory, else 2048)",
    )
    return parser
