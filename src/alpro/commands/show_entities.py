"""Show what a prompter teaches: ``alpro show-entities --output_dir RUN``.

Takes some validation pairs of a pretraining run and writes a page of their masked regions: what the
prompter recognizes in them, whether it is sure enough to teach that, and what the model makes of
the same regions. ``--picture`` draws some of them as a PNG, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alpro.commands.cli import exit_code_of, path_flag, positive
from alpro.commands.gallery.entities import entity_gallery
from alpro.commands.gallery.output import check_picture, write_gallery
from alpro.configs.loading import ResolvedConfig, load_config
from alpro.errors import InputError, pluralize
from alpro.tasks.pretraining.annotations import read_entities
from alpro.tasks.pretraining.config import PretrainConfig
from alpro.training.run_directory import RunDirectory, read_stored
from alpro.training.writable import check_output_file

if TYPE_CHECKING:
    from alpro.commands.gallery.entity_predictions import SetPredictions

DEFAULT_NUM_CLIPS = 8
PAGE = "entities.html"
NUM_IN_PICTURE = 4  # clips, at most


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags, changes = _parser().parse_known_args(arguments)
    return exit_code_of(
        lambda: show_entities(
            flags.output_dir,
            step=flags.step,
            num_clips=flags.num_clips,
            page=flags.output_file or flags.output_dir / PAGE,
            picture=flags.picture,
            changes=changes,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro show-entities",
        description="Show what a prompter teaches a model about regions of validation clips.",
        epilog="Further flags --KEY VALUE change the run's config, for this page: --device cpu, or "
        "a path that the data has moved to. Relative paths start where the run was started.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--output_dir", type=path_flag, required=True, help="of a pretraining run with use_mpm 1")
    add(
        "--num_clips",
        type=positive,
        default=DEFAULT_NUM_CLIPS,
        help="validation videos and images shown, spread over all validation sets (default:"
        " %(default)s)",
    )
    add("--step", default="best", help="checkpoint: best, last or a number (default: best)")
    add(
        "--output",
        "--output_file",
        dest="output_file",
        type=path_flag,
        help=f"the page to write, else {PAGE} in output_dir",
    )
    add("--picture", type=path_flag, help=f"a PNG to draw, too, of up to {NUM_IN_PICTURE} of them")
    return parser


def show_entities(
    output_dir: Path,
    *,
    step: str,
    num_clips: int,
    page: Path,
    picture: Path | None,
    changes: Sequence[str],
) -> None:
    """Write the page of a run and, if asked, a picture; print where they are.

    Args:
        output_dir: of the run.
        step: which checkpoint.
        num_clips: how many validation pairs.
        page: the HTML file.
        picture: the PNG; None for none.
        changes: flags that change the run's config.

    Raises:
        InputError: the folder is of no such run, or a file is missing or cannot be written.
    """
    check_output_file(page, named_by="--output")
    if picture is not None:
        check_picture(picture)
    resolved = read_run(output_dir, step=step, changes=changes)
    config = resolved.config
    entities = read_entities(Path(str(config.entity_file_path)), num_entities=config.num_entities)
    # A heavy import, after what can be wrong with the run, as in the entry scripts.
    from alpro.commands.gallery.entity_predictions import evenly_spaced, predict_validation_pairs

    sets = predict_validation_pairs(resolved, num_pairs=num_clips)
    clips = [pair for one in sets for pair in one.pairs]
    _tell_unreadable(sets)
    if not clips:
        raise InputError(f"{output_dir}: none of the chosen validation clips can be read")
    threshold = config.entity_threshold
    message = pluralize(len(entities), "entity", "entities")
    note = f"{output_dir}, checkpoint {step}: {_counts(sets)}; {message}."
    gallery = entity_gallery(clips, entities, note=note, threshold=threshold)
    write_gallery(gallery, page, named_by="--output_file", is_page=True)
    print(f"page: {page}")
    if picture is not None:
        chosen = evenly_spaced(min(NUM_IN_PICTURE, len(clips)), size=len(clips))
        few = [clips[index] for index in chosen]
        gallery = entity_gallery(few, entities, note=note, threshold=threshold)
        write_gallery(gallery, picture, named_by="--picture")
        print(f"picture: {picture}")


def read_run(
    output_dir: Path, *, step: str, changes: Sequence[str]
) -> ResolvedConfig[PretrainConfig]:
    """The config of a pretraining run, with its own checkpoint, text encoder and entities.

    Raises:
        InputError: if it is of another script, was pretrained without PEM or lacks the checkpoint.
    """
    output = RunDirectory(output_dir, rank=0)
    stored = read_stored(output.args)
    if not stored:
        raise InputError(
            f"--output_dir: {output_dir} is not the folder of a run: {output.args} is not there, "
            "or damaged"
        )
    script = stored.get("script", PretrainConfig.SCRIPT)
    if script != PretrainConfig.SCRIPT:
        raise InputError(
            f"--output_dir: {output_dir} is a run of {script}; name one of {PretrainConfig.SCRIPT}"
        )
    if not stored.get("use_mpm"):
        raise InputError(
            f"--output_dir: {output_dir} was pretrained without PEM, its model tells no entities; "
            "name a run with use_mpm 1"
        )
    checkpoint = output.checkpoint(step)
    if not checkpoint.is_file():
        steps = output.steps()
        there = f"there is {', '.join(steps)}" if steps else "no checkpoint yet"
        raise InputError(f"--step: there is no {checkpoint}: {there}")
    # Earlier versions have kept one of the model files, and do not list them.
    copies = {key: output.log / f"{key}.json" for key in stored}
    kept = stored.get("architecture", {})
    own = {
        **{"config": output.args, "output_dir": output_dir, "e2e_weights_path": checkpoint},
        **{key: copy for key, copy in copies.items() if key in kept or copy.is_file()},
        "entity_file_path": output.entities,
        **{"random_init": 0, "device": "auto"},
    }
    flags = [word for key, value in own.items() for word in (f"--{key}", str(value))]
    return load_config(PretrainConfig, [*flags, *changes])


def _counts(sets: Sequence[SetPredictions]) -> str:
    """Numbers of shown and of all pairs, set by set."""
    return ", ".join(
        f"{len(one.pairs)} of {pluralize(one.num_pairs, f'validation {one.media}')} ({one.name})"
        for one in sets
    )


def _tell_unreadable(sets: Sequence[SetPredictions]) -> None:
    for one in sets:
        for video in one.unreadable:
            print(f"left out: {one.name}: {video.video_id}: {video.reason}", file=sys.stderr)
