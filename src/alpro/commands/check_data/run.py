"""A whole check: read annotations, inspect media, derive findings, report."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from alpro.commands.check_data.annotations import ReadSet, guess_rows, load_dataset
from alpro.commands.check_data.findings import Finding, Findings
from alpro.commands.check_data.media import collect_media
from alpro.commands.check_data.page import JSON_NAME, report_page
from alpro.commands.check_data.probe_pool import probe_all
from alpro.commands.check_data.report import Checked, as_json, as_tsv
from alpro.commands.check_data.sources import Task, task_of_config, task_of_videos
from alpro.commands.check_data.texts import (
    TokenCounter,
    repetitions,
    shared_texts,
    token_lengths,
    unknown_answers,
)
from alpro.commands.check_data.verdicts import judge, judge_contents, judge_splits
from alpro.commands.cli import open_videos_of_flag
from alpro.errors import InputError, listed, pluralize, printable
from alpro.installation import has_package
from alpro.tasks.question_answering.annotations import AnswerLabels, read_answer_labels
from alpro.training.atomic_io import write_text
from alpro.training.writable import check_output_folder

PAGE_NAME = "report.html"
TABLE_NAME = "videos.tsv"
NUM_NAMED = 3  # problems of a kind that are printed
NUM_NAMED_REMARKS = 5  # names of remarks of a kind, in one line
LINE_WIDTH = 400  # characters of a printed finding
FULL_TIMES = 10  # factor on the time limit if all frames are decoded


def check(flags: argparse.Namespace, config_flags: Sequence[str]) -> int:
    """Check the data that flags name and report it; returns the number of problems.

    Raises:
        InputError: the config is wrong, or something that it takes is not installed.
    """
    task = _task(flags, config_flags)
    if any(source.of_images for source in task.sets) and not has_package("PIL"):
        raise InputError("check-data reads images with Pillow: `pip install pillow`")
    check_output_folder(
        flags.output, patterns=(PAGE_NAME, JSON_NAME, TABLE_NAME), named_by="--output"
    )
    return _report(_checked(task, flags), flags.output)


def _task(flags: argparse.Namespace, config_flags: Sequence[str]) -> Task:
    if flags.config is not None:
        return task_of_config(flags.config, kind=flags.kind, flags=config_flags)
    open_videos_of_flag(flags.videos)
    for path in flags.annotations:
        if not path.is_file():
            raise InputError(f"--annotations: there is no file {path}")
    rows = {path: guess_rows(path) for path in flags.annotations}
    return task_of_videos(flags.videos, rows=rows)


def _checked(task: Task, flags: argparse.Namespace) -> Checked:
    # Annotations and their texts.
    findings = Findings(has_rows=bool(task.sets))
    notices: list[str] = []
    sets = [load_dataset(source, findings) for source in task.sets]
    lengths = _check_texts(task, sets, findings, notices)
    # Files that the sets name, and those of plain storages.
    media = collect_media(task, sets, findings)
    if not media.items and not task.sets and not findings.count("problem"):
        raise InputError(f"--videos {task.title} holds no videos")
    findings.add(judge_splits(media, task.sets))
    # Inspect every file, within the limits of flags or config.
    seconds = task.seconds * (FULL_TIMES if flags.full else 1)
    videos = probe_all(
        media,
        sampling=task.sampling,
        full=flags.full,
        num_workers=flags.workers,
        seconds=seconds if flags.seconds is None else flags.seconds,
        megabytes=task.megabytes if flags.megabytes is None else flags.megabytes,
        folder=flags.output,
        retry_failed=flags.retry_failed,
    )
    findings.add(judge(videos, sampling=task.sampling))
    findings.add(judge_contents(videos))
    return Checked(
        task=task,
        full=flags.full,
        when=time.strftime("%Y-%m-%d %H:%M"),
        sets=sets,
        media=media,
        videos=videos,
        findings=findings,
        token_lengths=lengths,
        notices=notices,
    )


def _check_texts(
    task: Task, sets: Sequence[ReadSet], findings: Findings, notices: list[str]
) -> dict[str, Counter[int]]:
    """Look at all texts; returns how many of each set have so many word pieces."""
    lengths: dict[str, Counter[int]] = {}
    counter, labels = _counter(task, notices), _labels(task, notices)
    for data in sets:
        findings.add(repetitions(data))
        if counter is not None and task.texts is not None:
            limit = task.texts.max_length
            lengths[data.source.key], cut = token_lengths(data, counter, max_length=limit)
            findings.add(cut)
        if labels is not None and task.labels is not None:
            findings.add(unknown_answers(data, labels, path=task.labels))
    findings.add(shared_texts(sets))
    return lengths


def _counter(task: Task, notices: list[str]) -> TokenCounter | None:
    if task.texts is None:
        if task.sets:
            notices.append("Text lengths in word pieces were not checked: this needs --config.")
        return None
    try:
        return TokenCounter(task.texts)
    except InputError as error:
        notices.append(f"Text lengths in word pieces were not checked: {error}")
        return None


def _labels(task: Task, notices: list[str]) -> AnswerLabels | None:
    if task.labels is None:
        return None
    try:
        return read_answer_labels(task.labels)
    except InputError as error:
        notices.append(f"Answers were not checked for labels: {error}")
        return None


def _report(checked: Checked, folder: Path) -> int:
    """Write the report and print a summary; returns the number of problems."""
    # Files of the report, then the summary for the console.
    writers = {PAGE_NAME: report_page, JSON_NAME: as_json, TABLE_NAME: as_tsv}
    for name, text_of in writers.items():
        write_text(folder / name, text_of(checked))
    summary = checked.summary()
    files = pluralize(summary["videos"] + summary["images"], "file")
    texts = f", {pluralize(summary['texts'], 'text')}" if checked.sets else ""
    print(f"{checked.task.title}: {files}{texts}")
    for notice in checked.notices:
        print(f"note: {notice}")
    # One line per kind; problems also get remedy and examples, remarks names.
    counted = [(f"{len(some):,}", kind, some) for _, kind, some in checked.findings.by_kind()]
    width = max((len(count) for count, _, _ in counted), default=0)
    for count, kind, some in counted:
        print(f"  {kind.level:<7}  {count:>{width}}  {kind.title}")
        indent = " " * (width + 13)
        if kind.level == "remark":
            names = listed([one.subject for one in some], most=NUM_NAMED_REMARKS)
            print(f"{indent}- {_shortened(names)}")
        else:
            print(f"{indent}{kind.remedy}")
            for line in _first(some):
                print(f"{indent}{line}")
    if not counted:
        print("  no findings")
    problems = summary["problems"]
    verdict = f"{pluralize(problems, 'problem')} to solve" if problems else "no problems"
    print(f"{verdict}; report: {folder / PAGE_NAME}, all data: {folder / JSON_NAME}")
    return problems


def _first(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each of the first findings, or a single one if all have the same reason."""
    shared = findings[0].message
    is_shared = len(findings) > 1 and shared and all(one.message == shared for one in findings)
    lines = [f"{one.subject}: {one.message}".removesuffix(": ") for one in findings[:NUM_NAMED]]
    if is_shared:
        lines = [f"{shared}: {listed([one.subject for one in findings], most=NUM_NAMED)}"]
    for text in lines:
        yield f"- {_shortened(text)}"
    if len(findings) > NUM_NAMED and not is_shared:
        yield f"... and {len(findings) - NUM_NAMED:,} more"


def _shortened(text: str) -> str:
    """A text in one line of the console."""
    line = " ".join(text.split())
    return printable(line if len(line) <= LINE_WIDTH else f"{line[: LINE_WIDTH - 3]}...")
