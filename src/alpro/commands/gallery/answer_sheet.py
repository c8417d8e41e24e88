"""Draw questions with the answers a model gave to them: ``alpro answer-sheet``.

Reads ``results_all.json`` of an inference (a list with the question, its right answer and the best
answers of the model) and the videos, and writes one PNG.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from alpro.commands.cli import positive
from alpro.commands.gallery.drawing import (
    BAR_GAP,
    BAR_HEIGHT,
    CORRECT,
    FRAME_WIDTH,
    INK,
    LABEL_SIZE,
    MARGIN,
    PALE,
    PANEL_WIDTH,
    PAPER,
    TEXT_GAP,
    TILE,
    TITLE_SIZE,
    WRONG,
    StripReader,
    VideoStrips,
    draw_bar,
    draw_strip,
    strip_width,
)
from alpro.commands.gallery.lettering import draw_text, note_undrawable, shortened
from alpro.commands.gallery.results import (
    add_result_flags,
    chosen_results,
    read_records,
    recorded_path,
    run_picture_tool,
)
from alpro.errors import InputError
from alpro.evaluation.qa_results import NUM_BEST

PICTURE = "answer_sheet.png"

TITLE_HEIGHT = 36  # pixels, as all of these
LABEL_HEIGHT = 26
PANEL_GAP = 30
QUESTION_GAP = 26
MIN_STRIP_WIDTH = 350  # room for what stands below

PANEL_HEIGHT = NUM_BEST * (BAR_HEIGHT + BAR_GAP)
STRIP_HEIGHT = TILE + 2 * FRAME_WIDTH
ROW_HEIGHT = TITLE_HEIGHT + max(PANEL_HEIGHT, STRIP_HEIGHT + LABEL_HEIGHT) + QUESTION_GAP


@dataclass(frozen=True, slots=True)
class ShownQuestion:
    """A question, its right answer, and the model's best answers with their probabilities."""

    video_id: str
    question: str
    answer: str
    answer_type: str
    best: tuple[tuple[str, float], ...]

    @property
    def texts(self) -> list[str]:
        """All that is written of it."""
        return [self.video_id, self.question, self.answer, *(text for text, _ in self.best)]

    @property
    def is_right(self) -> bool:
        """Whether the model's first answer is the right one."""
        return self.best[0][0] == self.answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_picture_tool(
        _parser().parse_args(arguments), draw=make_answer_sheet, picture=PICTURE
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alpro answer-sheet",
        description="Draw questions with the answers a model gave to them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add_result_flags(parser, output_dir=Path("output/demo_qa"), picture=PICTURE)
    parser.add_argument(
        "--num_questions", type=positive, default=8, help="of all answer types in turn"
    )
    return parser


def make_answer_sheet(flags: argparse.Namespace) -> Image.Image:
    """Draw the questions that the flags ask for.

    Raises:
        InputError: files are missing or do not belong together.
    """
    results = chosen_results(flags, name="results_all.json")
    videos = flags.videos or recorded_path(results, "videos", flag="--videos")
    chosen = choose_questions(read_answers(results), num_questions=flags.num_questions)
    note_undrawable(text for one in chosen for text in one.texts)
    read_strip = VideoStrips(videos, num_frames=flags.num_frames)
    return draw_sheet(chosen, read_strip, num_frames=flags.num_frames)


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
    chosen = {
        kind: iter(_spread(by_type[kind], num=count)) for kind, count in Counter(order).items()
    }
    return [next(chosen[kind]) for kind in order]


def _spread(answers: Sequence[ShownQuestion], *, num: int) -> list[ShownQuestion]:
    """Take the middle of each of ``num`` equal stretches."""
    return [answers[int((index + 0.5) * len(answers) / num)] for index in range(num)]


def draw_sheet(
    answers: Sequence[ShownQuestion], read_strip: StripReader, *, num_frames: int
) -> Image.Image:
    """Draw one row per question: frames on the left, the model's best answers on the right.

    Args:
        answers: what was asked and answered.
        read_strip: video id -> ``num_frames`` square pictures of side ``TILE``.
        num_frames: pictures per clip.
    """
    left_width = max(strip_width(num_frames), MIN_STRIP_WIDTH)
    panel = MARGIN + left_width + PANEL_GAP
    width = panel + PANEL_WIDTH + MARGIN
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(answers) * ROW_HEIGHT - QUESTION_GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, answer in enumerate(answers):
        top = MARGIN + number * ROW_HEIGHT
        _draw_title(draw, answer, top=top, room=width - 2 * MARGIN)
        top += TITLE_HEIGHT
        strip = read_strip(answer.video_id)
        outline = CORRECT if answer.is_right else WRONG
        draw_strip(sheet, strip, left=MARGIN, top=top, outline=outline)
        middle = top + STRIP_HEIGHT + LABEL_HEIGHT / 2
        _draw_right_answer(draw, answer, middle=middle, width=left_width)
        for place, (text, probability) in enumerate(answer.best[:NUM_BEST]):
            color, ink = (CORRECT, CORRECT) if text == answer.answer else (WRONG, PALE)
            bar_top = top + place * (BAR_HEIGHT + BAR_GAP)
            draw_bar(draw, text, probability, left=panel, top=bar_top, color=color, ink=ink)
    return sheet


def _draw_title(draw: ImageDraw.ImageDraw, answer: ShownQuestion, *, top: int, room: float) -> None:
    title = shortened(answer.question, size=TITLE_SIZE, room=room)
    draw_text(draw, (MARGIN, top + TITLE_HEIGHT / 2), title, size=TITLE_SIZE, fill=INK)


def _draw_right_answer(
    draw: ImageDraw.ImageDraw, answer: ShownQuestion, *, middle: float, width: int
) -> None:
    size, room = LABEL_SIZE, width / 2 - TEXT_GAP
    text = shortened(f"right answer: {answer.answer}", size=size, room=room)
    draw_text(draw, (MARGIN, middle), text, size=size, fill=CORRECT)
    text = shortened(answer.video_id, size=size, room=room)
    draw_text(draw, (MARGIN + width, middle), text, size=size, fill=PALE, from_right=True)
