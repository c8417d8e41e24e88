"""Export a trained model: ``alpro export-model RUN --output DIR``.

The folder has all that the model needs to be used, and nothing else; `alpro.load` and every config
key that takes a checkpoint take it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from alpro.commands.cli import exit_code_of, path_flag


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return exit_code_of(lambda: _export(flags))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro export-model",
        description="Write the model folder of a run: weights, config, tokenizer, model card.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=path_flag, help="output folder of the run")
    parser.add_argument("--output", type=path_flag, required=True, help="new folder")
    parser.add_argument(
        "--step", default="best", help="checkpoint: best, last or an update (default: best)"
    )
    return parser


def _export(flags: argparse.Namespace) -> None:
    from alpro.inference.export import export_model

    folder: Path = export_model(flags.run, flags.output, step=flags.step)
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    print(f'{folder}: {megabytes:.1f} MB. In Python: model = alpro.load("{folder}")')
