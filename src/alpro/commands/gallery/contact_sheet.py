"""Draw queries with the clips a model found for them: ``alpro contact-sheet``.

Reads ``results.json`` of an inference (a list of ``{"vid_id", "txt_id", "score", "sim"}``), the
captions and the videos, and writes one PNG.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from alpro.commands.cli import path_flag, positive
from alpro.commands.gallery.drawing import (
    CORRECT,
    FRAME_WIDTH,
    INK,
    LABEL_SIZE,
    MARGIN,
    PALE,
    PAPER,
    TILE,
    TITLE_SIZE,
    WRONG,
    StripReader,
    VideoStrips,
    draw_strip,
    strip_width,
)
from alpro.commands.gallery.lettering import draw_text, note_undrawable, shortened, text_width
from alpro.commands.gallery.results import (
    add_result_flags,
    chosen_results,
    read_records,
    recorded_path,
    run_picture_tool,
)
from alpro.datasets.annotations import CaptionRow, read_captions
from alpro.errors import InputError

PICTURE = "contact_sheet.png"

STRIP_GAP = 26  # pixels, as all of these
TITLE_HEIGHT = 44
LABEL_HEIGHT = 24
LABEL_GAP = 12
QUERY_GAP = 22


@dataclass(frozen=True, slots=True)
class Hit:
    """A clip found for a query."""

    video_id: str
    score: float
    similarity: float
    is_correct: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A query with its best hits, and the place of its own clip among all that were scored."""

    caption: str
    hits: list[Hit]
    correct_place: int | None

    @property
    def video_ids(self) -> list[str]:
        """Ids of the hits."""
        return [hit.video_id for hit in self.hits]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_picture_tool(
        _parser().parse_args(arguments), draw=make_contact_sheet, picture=PICTURE
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro contact-sheet",
        description="Draw queries with the clips a model found for them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add_result_flags(parser, output_dir=Path("output/demo_ret"), picture=PICTURE)
    add = parser.add_argument
    add("--txt", type=path_flag, help="captions evaluated, else as the evaluation noted")
    add("--num_queries", type=positive, default=6, help="spread evenly over the captions")
    add("--top_k", type=positive, default=3, help="clips shown per query")
    return parser


def make_contact_sheet(flags: argparse.Namespace) -> Image.Image:
    """Draw the queries that the flags ask for.

    Raises:
        InputError: files are missing or do not belong together.
    """
    results = chosen_results(flags, name="results.json")
    txt = flags.txt or recorded_path(results, "annotations", flag="--txt")
    videos = flags.videos or recorded_path(results, "videos", flag="--videos")
    answers = read_answers(results, rows=read_captions(txt), top_k=flags.top_k)
    count = min(flags.num_queries, len(answers))
    chosen = np.linspace(0, len(answers) - 1, count).round().astype(int)
    shown = [answers[index] for index in chosen]
    note_undrawable(text for answer in shown for text in (answer.caption, *answer.video_ids))
    return draw_sheet(
        shown,
        VideoStrips(videos, num_frames=flags.num_frames),
        top_k=flags.top_k,
        num_frames=flags.num_frames,
    )


def read_answers(results: Path, *, rows: Sequence[CaptionRow], top_k: int) -> list[Answer]:
    """Sort the scored clips of each caption, best first; captions without results are left out.

    Args:
        results: ``results.json`` of an inference.
        rows: the captions; a result's ``txt_id`` is a place among them.
        top_k: clips kept per caption.

    Raises:
        InputError: the results are of other captions, or something else.
    """
    scored: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for number, record in read_records(results, _numbered, noun="retrieval results"):
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


def _numbered(record: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return record["txt_id"], record


def _answer(row: CaptionRow, records: list[dict[str, Any]], *, top_k: int) -> Answer:
    records = sorted(records, key=lambda record: (-record["score"], -record["sim"]))
    hits = [
        Hit(record["vid_id"], record["score"], record["sim"], record["vid_id"] == row.video_id)
        for record in records
    ]
    places = (place for place, hit in enumerate(hits, start=1) if hit.is_correct)
    return Answer(row.caption, hits[:top_k], next(places, None))


def draw_sheet(
    answers: Sequence[Answer],
    read_strip: StripReader,
    *,
    top_k: int,
    num_frames: int,
) -> Image.Image:
    """Draw one row of clips per answer.

    Args:
        answers: queries with their hits.
        read_strip: video id -> ``num_frames`` square pictures of side ``TILE``.
        top_k: columns of clips.
        num_frames: pictures per clip.
    """
    column_width = strip_width(num_frames) + STRIP_GAP
    row_height = TITLE_HEIGHT + TILE + 2 * FRAME_WIDTH + LABEL_HEIGHT + QUERY_GAP
    width = 2 * MARGIN + top_k * column_width - STRIP_GAP
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(answers) * row_height - QUERY_GAP), PAPER)
    for number, answer in enumerate(answers):
        top = MARGIN + number * row_height
        _draw_title(sheet, answer, top=top)
        for column, hit in enumerate(answer.hits):
            left = MARGIN + column * column_width
            strip = read_strip(hit.video_id)
            _draw_hit(sheet, hit, strip, place=column + 1, left=left, top=top + TITLE_HEIGHT)
    return sheet


def _draw_title(sheet: Image.Image, answer: Answer, *, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    note = "own clip not scored"
    if answer.correct_place is not None:
        note = f"own clip found at rank {answer.correct_place}"
    note_width = text_width(note, size=LABEL_SIZE)
    room = sheet.width - 2 * MARGIN - note_width - STRIP_GAP
    shorten = f"“{answer.caption}”"
    title = shortened(shorten, size=TITLE_SIZE, room=room, end="…”")
    draw_text(draw, (MARGIN, top + TITLE_HEIGHT / 2), title, size=TITLE_SIZE, fill=INK)
    right = (sheet.width - MARGIN, top + TITLE_HEIGHT / 2)
    color = CORRECT if answer.correct_place == 1 else PALE
    draw_text(draw, right, note, size=LABEL_SIZE, fill=color, from_right=True)


def _draw_hit(
    sheet: Image.Image, hit: Hit, strip: list[Image.Image], *, place: int, left: int, top: int
) -> None:
    draw, width = ImageDraw.Draw(sheet), strip_width(len(strip))
    outline = CORRECT if hit.is_correct else WRONG
    draw_strip(sheet, strip, left=left, top=top, outline=outline)
    middle = top + TILE + 2 * FRAME_WIDTH + LABEL_HEIGHT / 2
    size = LABEL_SIZE
    scores = f"match {hit.score:.2f}   similarity {hit.similarity:.1f}"
    draw_text(draw, (left + width, middle), scores, size=size, fill=PALE, from_right=True)
    room = width - text_width(scores, size=size) - LABEL_GAP
    label = shortened(f"{place}.  {hit.video_id}", size=size, room=room)
    color = CORRECT if hit.is_correct else PALE
    draw_text(draw, (left, middle), label, size=size, fill=color)
