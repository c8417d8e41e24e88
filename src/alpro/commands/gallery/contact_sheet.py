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
from alpro.commands.gallery.frames import FrameReader, frame_reader
from alpro.commands.gallery.output import run_gallery_command
from alpro.commands.gallery.results import (
    check_annotations,
    chosen_results,
    read_records,
    recorded_path,
    result_parser,
)
from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.errors import InputError

PICTURE = "contact_sheet.png"
SIDE = 56  # of a frame, in pixels
OWN_CLIP = Text("Green: the query's own clip.", "correct")
MATCH = "match: matching probability; "
SIMILARITY = "similarity: of VTC, divided by the temperature."


@dataclass(frozen=True, slots=True)
class Hit:
    """A clip that was scored for a query."""

    video_id: str
    score: float
    similarity: float

    @property
    def texts(self) -> list[Text]:
        """Its scores; VTC alone stores the similarity as the score."""
        similarity = Text(f"similarity {self.similarity:.1f}")
        if self.score == self.similarity:
            return [similarity]
        return [Text(f"match {self.score:.2f}"), similarity]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
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
    return run_gallery_command(
        parser.parse_args(arguments), make=make_contact_sheet, picture=PICTURE
    )


def make_contact_sheet(flags: argparse.Namespace) -> Gallery:
    """Make cards of the queries that the flags ask for.

    Raises:
        InputError: files are missing or do not belong together.
    """
    results = chosen_results(flags, name="results.json")
    txt = flags.txt or recorded_path(results, "annotations", flag="--txt")
    videos = flags.videos or recorded_path(results, "videos", flag="--videos")
    check_annotations(results, txt, given=flags.txt is not None)
    queries = read_queries(results, rows=read_captions(txt))
    count = min(flags.num_queries, len(queries))
    chosen = np.linspace(0, len(queries) - 1, count).round().astype(int)
    read_frames = frame_reader(videos, num_frames=flags.num_frames, side=SIDE)
    cards = [
        query_card(row, hits, read_frames, top_k=flags.top_k)
        for row, hits in (queries[index] for index in chosen)
    ]
    matching = any(hit.score != hit.similarity for _, hits in queries for hit in hits)
    legend = (OWN_CLIP, Text(MATCH + SIMILARITY if matching else SIMILARITY))
    return Gallery("Queries and the clips ranked first", legend, cards, side=SIDE)


def read_queries(
    results: Path, *, rows: Sequence[CaptionRow]
) -> list[tuple[CaptionRow, list[Hit]]]:
    """Sort the scored clips of each caption, best first; captions without results are left out.

    Args:
        results: ``results.json`` of an inference.
        rows: the captions; a result's ``txt_id`` is a place in them.

    Raises:
        InputError: the results are of other captions, or something else.
    """
    scored: dict[int, list[Hit]] = defaultdict(list)
    for number, hit in read_records(results, _numbered_hit, noun="retrieval results"):
        scored[number].append(hit)
    unknown = [number for number in scored if not 0 <= number < len(rows)]
    if unknown or not scored:
        raise InputError(
            f"{results} and --txt do not belong together: {len(rows)} captions,"
            f" but results for captions {sorted(unknown)[:3]}"
        )
    return [
        (rows[number], sorted(hits, key=lambda hit: (-hit.score, -hit.similarity)))
        for number, hits in sorted(scored.items())
    ]


def _numbered_hit(record: dict[str, Any]) -> tuple[int, Hit]:
    return record["txt_id"], Hit(record["vid_id"], record["score"], record["sim"])


def query_card(
    row: CaptionRow, hits: Sequence[Hit], read_frames: FrameReader, *, top_k: int
) -> Card:
    """A card with the query's best hits, of which its own clip is green."""
    roles: list[Role] = ["correct" if hit.video_id == row.video_id else "pale" for hit in hits]
    note = Text("own clip not scored")
    if "correct" in roles:
        note = Text(f"own clip at rank {roles.index('correct') + 1}", roles[0])
    strips = [
        Strip(
            caption=(Text(f"{rank}.  {hit.video_id}", role), *hit.texts),
            frames=read_frames(hit.video_id),
            outline="correct" if role == "correct" else "wrong",
        )
        for rank, (hit, role) in enumerate(zip(hits[:top_k], roles, strict=False), start=1)
    ]
    return Card((Text(f"“{row.caption}”", "plain"), note), strips)
