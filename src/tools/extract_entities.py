"""Make the entity list of a config: ``python -m src.tools.extract_entities --config FILE``.

Counts the nouns of all captions (or questions) of the config's ``train_datasets`` and writes the
most frequent ones, one ``word count`` per line.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from src.configs.layers import read_json_object
from src.configs.pretraining import told_media
from src.configs.problems import ConfigError, Problem
from src.datasets.captioned import read_captioned
from src.datasets.questions import read_questions
from src.errors import USER_ERROR_EXIT_CODE, InputError
from src.tools.nouns import TagCounts, count_tags, entities_of, load_tagger
from src.tools.results import positive

DEFAULT_FILE = Path("data/unigrams.txt")
DEFAULT_NUM_ENTITIES = 1000
CAPTIONS_PER_JOB = 2000
LOGFILE_REDRAW_SECONDS = 5.0  # of a progress bar that is not on a terminal
QUESTION_KEYS = ("ans2label_path", "task")
"""Keys that only configs of question answering have."""

Job = list[tuple[str, int]]
"""Captions with how often each of them occurs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    try:
        load_tagger()  # whether it is there is told before captions are read
        extract_entities(
            flags.config,
            output_file=flags.output_file,
            num_entities=flags.num_entities,
            num_workers=flags.n_workers or os.cpu_count() or 1,
            overwrite=flags.overwrite,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m src.tools.extract_entities",
        description="Write the most frequent nouns of a config's training captions.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=Path, required=True, help="of pretraining or of any task")
    add(
        "--output_file",
        type=Path,
        help=f"the list to write (default: the config's entity_file_path, else {DEFAULT_FILE})",
    )
    add(
        "--num_entities",
        type=positive,
        help="an error if there are fewer (default: the config's num_entities,"
        f" else {DEFAULT_NUM_ENTITIES} or as many as there are)",
    )
    add("--n_workers", type=positive, help="processes (default: one per core)")
    add("--overwrite", action="store_true", help="replace a file that says something else")
    return parser


def extract_entities(
    config_file: Path,
    *,
    output_file: Path | None,
    num_entities: int | None,
    num_workers: int,
    overwrite: bool,
) -> None:
    """Write the entity list of a config, and print how long it took.

    Args:
        config_file: JSON file of pretraining or of any task.
        output_file: where the list goes; None: where the config expects it.
        num_entities: how many; None: what the config asks for.
        num_workers: processes that find nouns.
        overwrite: whether another list may be replaced.

    Raises:
        InputError: the config or an annotation file is wrong, there are too few nouns, or another
            list would be replaced.
    """
    config = _read_config(config_file)
    path = output_file or Path(config.get("entity_file_path") or DEFAULT_FILE)
    asked = num_entities or config.get("num_entities")
    start = time.perf_counter()
    captions = Counter(_training_texts(config, config_file))
    nouns = entities_of(_count_in_parallel(captions, num_workers=num_workers))
    seconds = time.perf_counter() - start
    print(
        f"{captions.total():,} captions ({len(captions):,} different) in {seconds:.1f} s: "
        f"{captions.total() / seconds:,.0f} captions per second, {num_workers} processes"
    )
    if len(nouns) < (asked or 1):
        raise InputError(
            f"{config_file}: the training captions have {len(nouns)} nouns, {asked or 1} entities "
            f"are asked for: set num_entities to {len(nouns)} at most"
        )
    chosen = nouns[: asked or DEFAULT_NUM_ENTITIES]
    _write(path, chosen, overwrite=overwrite)
    (first, most), (last, least) = chosen[0], chosen[-1]
    print(
        f"{path}: {len(chosen)} of {len(nouns):,} nouns, from {first!r} ({most:,} times) to "
        f"{last!r} ({least:,} times)"
    )


def _read_config(path: Path) -> dict[str, Any]:
    problems: list[Problem] = []
    config = read_json_object(path, named_by="--config", problems=problems)
    for key in ("entity_file_path", "task"):
        if not isinstance(config.get(key), str | None):
            problems.append(Problem(str(path), f"{key} must be text."))
    num_entities = config.get("num_entities", DEFAULT_NUM_ENTITIES)
    if not isinstance(num_entities, int) or num_entities < 1:
        problems.append(Problem(str(path), "num_entities must be a number above 0."))
    if problems:
        raise ConfigError(problems)
    return config


def _training_texts(config: Mapping[str, Any], config_file: Path) -> Iterator[str]:
    """All captions or questions of the training sets, repetitions included."""
    datasets = config.get("train_datasets")
    if not datasets or not isinstance(datasets, list):
        raise InputError(
            f"{config_file}: train_datasets must be a list of objects, of one at least"
        )
    is_questions = any(config.get(key) for key in QUESTION_KEYS)
    for number, dataset in enumerate(datasets):
        path = _annotation_file(dataset, config.get("task"))
        if path is None:
            raise InputError(
                f'{config_file}: train_datasets.{number} names no annotation file: give it "ann" '
                'or "txt"'
            )
        if is_questions:
            yield from (row.question for row in read_questions(path))
        else:
            media = told_media(dataset.get("media", "auto"), str(path))
            items, num_left_out = read_captioned(path, media)
            if num_left_out:
                print(f"{path}: {num_left_out:,} rows left out, as in training (txt_len)")
            yield from (caption for item in items for caption in item.captions)


def _annotation_file(dataset: Any, task: str | None) -> Path | None:
    """What `ann` or `txt` names: a path, or a map of tasks to paths."""
    named = (dataset.get("ann") or dataset.get("txt")) if isinstance(dataset, dict) else None
    if isinstance(named, dict):
        named = named.get(task)
    return Path(named) if isinstance(named, str) else None


def _count_in_parallel(captions: Mapping[str, int], *, num_workers: int) -> TagCounts:
    """Count the words, by tag, of captions that occur so many times."""
    counts = TagCounts()
    progress = tqdm(
        total=len(captions),
        desc="different captions",
        unit_scale=True,
        mininterval=0.1 if sys.stderr.isatty() else LOGFILE_REDRAW_SECONDS,
    )
    with progress:
        for job, found in _counted(_jobs(captions), num_workers=num_workers):
            counts.update(found)
            progress.update(len(job))
    return counts


def _jobs(captions: Mapping[str, int]) -> list[Job]:
    left = iter(captions.items())
    return list(iter(lambda: list(islice(left, CAPTIONS_PER_JOB)), []))


def _counted(jobs: list[Job], *, num_workers: int) -> Iterator[tuple[Job, TagCounts]]:
    if num_workers == 1 or len(jobs) == 1:
        yield from zip(jobs, map(count_tags, jobs), strict=True)
        return
    with ProcessPoolExecutor(min(num_workers, len(jobs))) as pool:
        yield from zip(jobs, pool.map(count_tags, jobs), strict=True)


def _write(path: Path, entities: Sequence[tuple[str, int]], *, overwrite: bool) -> None:
    text = "".join(f"{entity} {count}\n" for entity, count in entities)
    try:
        if path.exists() and not overwrite and path.read_text(encoding="utf-8") != text:
            raise InputError(
                f"{path} exists and says something else: add --overwrite, or give another "
                "--output_file"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot write {path}: {error}; give another --output_file") from error


if __name__ == "__main__":
    sys.exit(main())
