"""Make the entity list of a config: ``alpro extract-entities --config FILE``.

Counts the nouns of all captions (or questions) of the config's ``train_datasets`` and writes the
most frequent ones, one ``word count`` per line.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from alpro.commands.cli import (
    MAX_WORKERS,
    at_most,
    config_flag,
    exit_code_of,
    not_negative,
    path_flag,
    progress,
)
from alpro.commands.nouns import TagCounts, count_tags, entities_of, load_tagger
from alpro.configs.downstream import DownstreamDataset, annotation_in
from alpro.configs.errors import ConfigError, ConfigIssue
from alpro.configs.experiment import ExperimentConfig
from alpro.configs.sources import read_json_object
from alpro.configs.validation import read_values
from alpro.datasets.annotations import read_captions
from alpro.errors import InputError, pluralize
from alpro.tasks.pretraining.annotations import read_captioned
from alpro.tasks.pretraining.config import PretrainConfig, PretrainingConfig
from alpro.tasks.pretraining.options import PretrainingDataset, media_of
from alpro.tasks.question_answering.annotations import read_questions
from alpro.tasks.question_answering.config import QaConfig
from alpro.tasks.registry import kind_of
from alpro.tasks.retrieval.config import RetrievalConfig
from alpro.training.atomic_io import write_text
from alpro.training.writable import check_output_file

DEFAULT_FILE = Path("data/unigrams.txt")
DEFAULT_NUM_ENTITIES = 1000
CAPTIONS_PER_JOB = 2000
READ_KEYS = ("train_datasets", "task", "entity_file_path", "num_entities")

Job = list[tuple[str, int]]
"""Captions with their numbers of occurrences."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)

    def work() -> None:
        load_tagger()  # fails before captions are read if it is not installed
        extract_entities(
            flags.config,
            output_file=flags.output_file,
            num_entities=flags.num_entities,
            num_workers=flags.n_workers or os.cpu_count() or 1,
            overwrite=flags.overwrite,
        )

    return exit_code_of(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro extract-entities",
        description="Write the most frequent nouns of a config's training captions.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", type=config_flag, required=True, help="of pretraining or of any task")
    add(
        "--output",
        "--output_file",
        dest="output_file",
        type=path_flag,
        help=f"the list to write (default: the config's entity_file_path, else {DEFAULT_FILE})",
    )
    add(
        "--num_entities",
        type=not_negative,
        help="an error if there are fewer nouns; 0 for all of them (default: the config's"
        f" num_entities, else at most {DEFAULT_NUM_ENTITIES})",
    )
    add(
        "--n_workers",
        type=at_most(MAX_WORKERS, lowest=1),
        help="processes (default: one per core)",
    )
    add("--overwrite", action="store_true", help="replace a file with other content")
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
        output_file: the list; None: the file that the config names.
        num_entities: number of nouns; 0: all; None: as the config says.
        num_workers: processes that tag captions.
        overwrite: whether another list may be replaced.

    Raises:
        InputError: the config or an annotation file is wrong, there are too few nouns, or another
            list would be replaced.
    """
    kind, config = _read_config(config_file)
    path = output_file or Path(config.get("entity_file_path") or DEFAULT_FILE)
    asked = config["num_entities"] if num_entities is None else num_entities
    check_output_file(path, named_by="--output")
    # Equal captions are tagged once, with their count as weight.
    start = time.perf_counter()
    captions = Counter(_training_texts(kind, config, config_file=config_file))
    nouns = entities_of(_count_in_parallel(captions, num_workers=num_workers))
    seconds = time.perf_counter() - start
    processes = pluralize(num_workers, "process", "processes")
    print(
        f"{pluralize(captions.total(), 'caption')} ({len(captions):,} different) in "
        f"{seconds:.1f} s: "
        f"{captions.total() / seconds:,.0f} captions per second, {processes}"
    )
    # A list that is empty or too short is an error, unless its length was left open.
    if not nouns:
        raise InputError(
            f"{config_file}: the training captions have no nouns that the English tagger knows; "
            "for captions in other languages, write the nouns to a file yourself, one per line, "
            "and set entity_file_path to it"
        )
    if asked is not None and len(nouns) < asked:
        by_flag = num_entities is not None
        where = "--num_entities" if by_flag else str(config_file)
        remedy = "pass" if by_flag else "set num_entities to"
        raise InputError(
            f"{where}: the training captions have {pluralize(len(nouns), 'noun')}, "
            f"fewer than the {asked:,} requested: {remedy} {len(nouns)} at most, or "
            "--num_entities 0 for all of them"
        )
    # Without a requested length the default cuts the list; 0 keeps all.
    chosen = nouns[: DEFAULT_NUM_ENTITIES if asked is None else asked or len(nouns)]
    _write(path, chosen, overwrite=overwrite)
    (first, most), (last, least) = chosen[0], chosen[-1]
    print(
        f"{path}: {len(chosen)} of {pluralize(len(nouns), 'noun')}, from {first!r} "
        f"({pluralize(most, 'time')}) to {last!r} ({pluralize(least, 'time')})"
    )


def _read_config(path: Path) -> tuple[type[ExperimentConfig], dict[str, Any]]:
    """Kind of a config and the values needed here; ``num_entities`` may be None."""
    problems: list[ConfigIssue] = []
    raw = read_json_object(path, named_by="--config", problems=problems)
    kind = kind_of(raw)
    if issubclass(
        kind, PretrainingConfig
    ):  # the prompter's config ignores the list, but may name it
        kind = PretrainConfig
    read = {key: raw[key] for key in READ_KEYS if key in raw}
    values = read_values(kind, read, locate=lambda key: (str(path), key), problems=problems)
    if problems:
        raise ConfigError(problems)
    if "num_entities" not in raw:
        values["num_entities"] = None  # the default of training does not apply: all nouns
    return kind, values


def _training_texts(
    kind: type[ExperimentConfig], config: Mapping[str, Any], *, config_file: Path
) -> Iterator[str]:
    """All captions or questions of the training sets, repetitions included."""
    if not config["train_datasets"]:
        raise InputError(f"{config_file}: train_datasets must be a list with at least one object")
    for number, dataset in enumerate(config["train_datasets"]):
        path = _annotation_file(dataset, config.get("task"))
        if path is None:
            keys = '"ann" or "txt"' if kind is PretrainConfig else '"txt"'
            raise InputError(
                f"{config_file}: train_datasets.{number} names no annotation file: set {keys}"
            )
        # Read the rows as the training of this task does.
        if kind is QaConfig:
            yield from (row.question for row in read_questions(path))
        elif kind is RetrievalConfig:
            yield from (row.caption for row in read_captions(path))
        else:
            items, num_left_out = read_captioned(path, media_of(dataset))
            if num_left_out:
                print(
                    f"{path}: {pluralize(num_left_out, 'row')} left out, as in training (txt_len)"
                )
            yield from (caption for item in items for caption in item.captions)


def _annotation_file(
    dataset: PretrainingDataset | DownstreamDataset, task: str | None
) -> Path | None:
    """The file that training reads: other tasks than pretraining do not look at `ann`."""
    if isinstance(dataset, PretrainingDataset):
        named = dataset.ann or dataset.txt
    else:
        named = annotation_in(dataset.txt, task)
    return None if named is None else Path(named)


def _count_in_parallel(captions: Mapping[str, int], *, num_workers: int) -> TagCounts:
    """Count the words of captions by tag, each caption with its number of occurrences."""
    counts = TagCounts()
    with progress(None, len(captions), "different captions", "it", unit_scale=True) as bar:
        for job, tags in _counted(_jobs(captions), num_workers=num_workers):
            counts.update(tags)
            bar.update(len(job))
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
        if path.exists():
            if path.read_text(encoding="utf-8", errors="replace") == text:
                return
            if not overwrite:
                raise InputError(
                    f"{path} exists with other content: add --overwrite, or choose another --output"
                )
        write_text(path, text)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; choose another --output") from error
