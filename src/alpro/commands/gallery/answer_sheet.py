"""Questions with the answers that a model gave to them: ``alpro answer-sheet``.

Reads ``results_all.json`` of an inference (a list with the question, its right answer and the best
answers of the model) and the videos, and writes one PNG, or a page.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from alpro.commands.cli import positive
from alpro.commands.gallery.cards import Bar, Card, Gallery, Strip, Text
from alpro.commands.gallery.frames import FrameReader, frame_reader
from alpro.commands.gallery.output import run_gallery_command
from alpro.commands.gallery.results import (
    chosen_results,
    read_records,
    recorded_path,
    result_parser,
)
from alpro.errors import InputError
from alpro.tasks.question_answering.evaluation import NUM_BEST

PICTURE = "answer_sheet.png"
SIDE = 56  # of a frame, in pixels
LEGEND = (
    Text("Green: the right answer; its clip is outlined if the model answers so.", "correct"),
)


@dataclass(frozen=True, slots=True)
class ShownQuestion:
    """A question, its right answer, and the model's best answers with their probabilities."""

    video_id: str
    question: str
    answer: str
    answer_type: str
    best: tuple[tuple[str, float], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = result_parser(
        "answer-sheet",
        "Draw questions with the answers a model gave to them.",
        output_dir=Path("output/demo_qa"),
        picture=PICTURE,
    )
    parser.add_argument(
        "--num_questions", type=positive, default=8, help="of all answer types in turn"
    )
    return run_gallery_command(
        parser.parse_args(arguments), make=make_answer_sheet, picture=PICTURE
    )


def make_answer_sheet(flags: argparse.Namespace) -> Gallery:
    """Make cards of the questions that the flags ask for.

    Raises:
        InputError: files are missing or do not belong together.
    """
    results = chosen_results(flags, name="results_all.json")
    videos = flags.videos or recorded_path(results, "videos", flag="--videos")
    chosen = choose_questions(read_answers(results), num_questions=flags.num_questions)
    read_frames = frame_reader(videos, num_frames=flags.num_frames, side=SIDE)
    cards = [question_card(one, read_frames) for one in chosen]
    return Gallery("Questions and the most probable answers", LEGEND, cards, side=SIDE)


def read_answers(results: Path) -> list[ShownQuestion]:
    """Read what was asked and answered.

    Raises:
        InputError: if the file holds something else.
    """
    answers = read_records(results, _shown_question, noun="answered questions")
    if not answers:
        raise InputError(f"{results} holds no answers")
    return answers


def _shown_question(record: dict[str, Any]) -> ShownQuestion:
    return ShownQuestion(
        video_id=record["data"]["vid_id"],
        question=record["data"]["question"],
        answer=record["data"]["answer"],
        answer_type=record["data"]["answer_type"],
        best=tuple((best["answer"], best["probability"]) for best in record["top5"]),
    )


def choose_questions(
    answers: Sequence[ShownQuestion], *, num_questions: int
) -> list[ShownQuestion]:
    """Take questions of all answer types in turn, of each type spread evenly over the file.

    Where a type has no more questions, the others go on taking turns.
    """
    by_type: dict[str, list[ShownQuestion]] = defaultdict(list)
    for answer in answers:
        by_type[answer.answer_type].append(answer)
    turns = chain.from_iterable(zip_longest(*([kind] * len(own) for kind, own in by_type.items())))
    order = [kind for kind in turns if kind is not None][:num_questions]
    chosen = {}
    for kind, count in Counter(order).items():
        own = by_type[kind]
        # The middle of each of `count` equal stretches.
        chosen[kind] = iter([own[int((i + 0.5) * len(own) / count)] for i in range(count)])
    return [next(chosen[kind]) for kind in order]


def question_card(question: ShownQuestion, read_frames: FrameReader) -> Card:
    """A card with the question's clip and the model's answers, of which the right one is green."""
    bars = [
        Bar(Text(text, "correct"), probability, "correct")
        if text == question.answer
        else Bar(Text(text), probability, "wrong")
        for text, probability in question.best[:NUM_BEST]
    ]
    strip = Strip(
        caption=(Text(f"right answer: {question.answer}", "correct"), Text(question.video_id)),
        frames=read_frames(question.video_id),
        outline=bars[0].role,
        bars=bars,
    )
    return Card([Text(question.question, "plain")], [strip])
