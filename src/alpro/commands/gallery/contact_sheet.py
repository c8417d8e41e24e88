"""Queries with the clips that a model ranks first: ``alpro contact-sheet``.

Reads ``results.json`` of an inference (a list of ``{"vid_id", "txt_id", "score", "sim"}``), the
captions and the videos, and writes one PNG, or a page.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alpro.commands.cli import path_flag, positive
from alpro.commands.gallery.cards import Card, Gallery, Role, Strip, Text
from alpro.commands.gallery.frames import FrameReader, StoredFrames
from alpro.commands.gallery.output import run_gallery_command
from alpro.commands.gallery.results import (
    chosen_results,
    read_records,
    recorded_path,
    result_parser,
)
from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.errors import InputError

PICTURE = "contact_sheet.png"
SIDE = 56  # of a frame, in pixels
LEGEND = (
    Text("Green: the query's own clip.", "correct"),
    Text("match: matching probability; similarity: of VTC, divided by the temperature."),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A clip that was scored for a query."""

    video_id: str
    score: float
    similarity: float
    is_correct: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A query with its best hits, and the rank of its own clip, None if that was not scored."""

    caption: str
    hits: list[Hit]
    correct_rank: int | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    flags = _parser().parse_args(arguments)
    return run_gallery_command(flags, make=make_contact_sheet, picture=PICTURE)


def _parser() -> argparse.ArgumentParser:
    parser = result_parser(
        "contact-sheet",
        "Draw queries with the clips that a model ranks first.",
        output_dir=Path("output/demo_ret"),
        picture=PICTURE,
    )
    add = parser.add_argument
    add("--txt", type=path_flag, help="captions evaluated, else as the evaluation noted")
    add("--num_queries", type=positive, default=6, help="spread evenly over the captions")
    add("--top_k", type=positive, default=3, help="clips shown per query")
    return parser


def make_contact_sheet(flags: argparse.Namespace) -> Gallery:
    """Make cards of the queries that the flags ask for.

    Raises:
        InputError: files are missing or do not belong together.
    """
    results = chosen_results(flags, name="results.json")
    txt = flags.txt or recorded_path(results, "annotations", flag="--txt")
    videos = flags.videos or recorded_path(results, "videos", flag="--videos")
    answers = read_answers(results, rows=read_captions(txt), top_k=flags.top_k)
    count = min(flags.num_queries, len(answers))
    chosen = np.linspace(0, len(answers) - 1, count).round().astype(int)
    read_frames = StoredFrames(videos, num_frames=flags.num_frames, side=SIDE)
    cards = [answer_card(answers[index], read_frames) for index in chosen]
    return Gallery("Queries and the clips ranked first", LEGEND, cards, side=SIDE)


def read_answers(results: Path, *, rows: Sequence[CaptionRow], top_k: int) -> list[Answer]:
    """Sort the scored clips of each caption, best first; captions without results are left out.

    Args:
        results: ``results.json`` of an inference.
        rows: the captions; a result's ``txt_id`` is a place in them.
        top_k: clips kept per caption.

    Raises:
        InputError: the results are of other captions, or something else.
    """
    scored: dict[int, list[dict[str, Any]]] = defaultdict(list)
    numbered = read_records(results, lambda one: (one["txt_id"], one), noun="retrieval results")
    for number, record in numbered:
        scored[number].append(record)
    unknown = [number for number in scored if not 0 <= number < len(rows)]
    if unknown or not scored:
        raise InputError(
            f"{results} and --txt do not belong together: {len(rows)} captions,"
            f" but results for captions {sorted(unknown)[:3]}"
        )
    return [
        _answer(rows[number], records, top_k=top_k) for number, records in sorted(scored.items())
    ]


def _answer(row: CaptionRow, records: list[dict[str, Any]], *, top_k: int) -> Answer:
    records = sorted(records, key=lambda record: (-record["score"], -record["sim"]))
    hits = [
        Hit(record["vid_id"], record["score"], record["sim"], record["vid_id"] == row.video_id)
        for record in records
    ]
    ranks = (rank for rank, hit in enumerate(hits, start=1) if hit.is_correct)
    return Answer(row.caption, hits[:top_k], next(ranks, None))


def answer_card(answer: Answer, read_frames: FrameReader) -> Card:
    """A card with the query's hits, of which its own clip is green."""
    note = Text("own clip not scored")
    if answer.correct_rank is not None:
        role: Role = "correct" if answer.correct_rank == 1 else "pale"
        note = Text(f"own clip at rank {answer.correct_rank}", role)
    strips = [
        Strip(
            caption=(
                Text(f"{rank}.  {hit.video_id}", "correct" if hit.is_correct else "pale"),
                Text(f"match {hit.score:.2f}"),
                Text(f"similarity {hit.similarity:.1f}"),
            ),
            frames=read_frames(hit.video_id),
            outline="correct" if hit.is_correct else "wrong",
        )
        for rank, hit in enumerate(answer.hits, start=1)
    ]
    return Card((Text(f"“{answer.caption}”", "plain"), note), strips)
