from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from alpro.commands.demo.planning import describe, plan_dataset
from alpro.commands.demo.questions import (
    KEPT_SHARES,
    Question,
    applicable_questions,
    draw_questions,
)

OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
OTHER_END = {"at the start": "at the end", "at the end": "at the start"}


def thing(name: str, *, start: tuple[float, float], end: tuple[float, float]) -> dict[str, Any]:
    color, shape = name.split()
    return {"color": color, "shape": shape, "start": list(start), "end": list(end)}


def event(number: int, action: str, begin: int = 0, end: int = 16) -> dict[str, Any]:
    return {"thing": number, "action": action, "begin": begin, "end": end}


RED_SQUARE = thing("red square", start=(0.8, 0.2), end=(0.2, 0.2))
BLUE_HEART = thing("blue heart", start=(0.65, 0.9), end=(0.65, 0.9))


def asked(kind: str, things: list[Any], events: list[Any]) -> dict[str, str]:
    """Question -> answer."""
    record = {"kind": kind, "things": things, "events": events}
    questions = applicable_questions(record)
    answers = {question.text: question.answer for question in questions}
    assert len(answers) == len(questions)
    return answers


def test_questions_about_one_thing_with_one_action() -> None:
    assert asked("single", [RED_SQUARE], [event(0, "left")]) == {
        "what color is the square?": "red",
        "what shape is red?": "square",
        "what does the red square do?": "move left",
        "how many shapes are there?": "one",
        "how many shapes move?": "one",
        "how many things does the red square do?": "one",
        "who moves?": "square",
        "where does the red square move?": "at the top",
        "when does the red square move?": "all the time",
        "which way does the red square move?": "left",
    }


def test_questions_about_one_thing_with_two_actions() -> None:
    events = [event(0, "left", 0, 8), event(0, "shrink", 8, 16)]
    answers = asked("then", [RED_SQUARE], events)
    assert {text: answers[text] for text in answers if "color" not in text} == {
        "what shape is red?": "square",
        "what does the red square do first?": "move left",
        "what does the red square do last?": "shrink",
        "how many shapes are there?": "one",
        "how many shapes move?": "one",
        "how many things does the red square do?": "two",
        "how does the red square change size?": "shrink",
        "who changes size?": "square",
        "where does the red square move?": "at the top",
        "when does the red square move?": "at the start",
        "when does the red square change size?": "at the end",
        "which way does the red square move?": "left",
    }


def test_questions_about_two_things_in_turn() -> None:
    events = [event(0, "left", 0, 8), event(1, "spin", 8, 16)]
    assert asked("turns", [RED_SQUARE, BLUE_HEART], events) == {
        "what color is the square?": "red",
        "what shape is red?": "square",
        "what color is the heart?": "blue",
        "what shape is blue?": "heart",
        "what does the red square do?": "move left",
        "what does the blue heart do?": "spin",
        "what color is the shape that moves?": "red",
        "what color is the shape that spins?": "blue",
        "what color is the shape that acts first?": "red",
        "what color is the shape that acts last?": "blue",
        "who moves?": "square",
        "who spins?": "heart",
        "who acts first?": "square",
        "who acts last?": "heart",
        "how many shapes are there?": "two",
        "how many shapes move?": "one",
        "where does the red square move?": "at the top",
        "where is the blue heart?": "bottom right",
        "when does the red square move?": "at the start",
        "when does the blue heart spin?": "at the end",
        "which way does the red square move?": "left",
    }


def test_things_that_pass_each_other_differ_by_direction() -> None:
    answers = asked("together", [RED_SQUARE, BLUE_HEART], [event(0, "left"), event(1, "right")])
    assert answers["who moves left?"] == "square"
    assert answers["what color is the shape that moves right?"] == "blue"
    assert answers["how many shapes move?"] == "two"
    assert not {"who moves?", "who acts first?"} & set(answers)


def test_two_moves_are_asked_for_in_order() -> None:
    events = [event(0, "left", 0, 8), event(0, "up", 8, 16)]
    answers = asked("then", [RED_SQUARE], events)
    assert answers["which way does the red square move first?"] == "left"
    assert answers["which way does the red square move last?"] == "up"
    assert not {"when does the red square move?", "which way does the red square move?"} & set(
        answers
    )


@pytest.mark.parametrize(
    ("things", "events", "unclear"),
    [
        (["red heart", "blue heart"], ["left", "spin"], ["the heart?", "who"]),
        (["red heart", "red square"], ["left", "spin"], ["shape is red", "shape that"]),
        (["red heart", "blue square"], ["left", "left"], ["who moves", "that moves"]),
        (["red heart"], ["blink"], ["where"]),
    ],
)
def test_ambiguous_questions_are_not_asked(
    things: list[str], events: list[str], unclear: list[str]
) -> None:
    corner = (0.1, 0.1)
    answers = asked(
        "together",
        [thing(name, start=corner, end=corner) for name in things],
        [event(number, action) for number, action in enumerate(events)],
    )
    assert answers
    assert not [text for text in answers if any(words in text for words in unclear)]


@pytest.mark.parametrize(
    ("action", "start", "answer"),
    [
        ("down", (0.2, 0.45), "at the left"),
        ("down", (0.45, 0.2), None),
        ("right", (0.2, 0.9), "at the bottom"),
        ("spin", (0.2, 0.9), "bottom left"),
        ("spin", (0.2, 0.45), None),
    ],
)
def test_a_place_near_a_middle_line_is_not_asked_for(
    action: str, start: tuple[float, float], answer: str | None
) -> None:
    answers = asked("single", [thing("red square", start=start, end=start)], [event(0, action)])
    places = [given for text, given in answers.items() if text.startswith("where")]
    assert places == ([answer] if answer else [])


@pytest.fixture(scope="module")
def siblings() -> list[list[dict[str, Any]]]:
    pairs = plan_dataset(num_pairs={"pretrain": 0, "train": 400, "val": 0, "test": 50}, seed=0)
    return [describe(pair) for pair in pairs]


def draw(siblings: list[Any], *, split: str, limit: int | None) -> list[list[list[Question]]]:
    rng = np.random.default_rng(0)
    own = [pair for pair in siblings if pair[0]["split"] == split]
    return [draw_questions(pair, num_questions=limit, rng=rng) for pair in own]


def test_backwards_only_what_time_decides_is_answered_differently(siblings: list[Any]) -> None:
    kept = ("color is the square", "shape is", "how many", "who moves?", "who spins?")
    changed = 0
    for first, second in draw(siblings, split="test", limit=None):
        answers = {question.text: question for question in second}
        for question in first:
            twin = answers.get(question.text)
            if twin is None:
                continue
            if question.text.startswith(kept):
                assert twin.answer == question.answer
            elif question.template == "which way does the {thing} move?":
                assert twin.answer == OPPOSITE[question.answer]
                changed += 1
            elif question.answer_type == "when":
                assert twin.answer == OTHER_END.get(question.answer, question.answer)
                changed += 1
    assert changed > 50


def test_training_siblings_are_asked_alike(siblings: list[Any]) -> None:
    alike = different = 0
    for pair in draw(siblings, split="train", limit=3):
        first, second = ({question.text for question in questions} for questions in pair)
        assert max(len(first), len(second)) <= 3
        alike += len(first & second)
        different += len(first - second)
    assert alike > 4 * different


def test_all_questions_about_a_lonely_thing_are_asked_where_there_is_no_limit(
    siblings: list[Any],
) -> None:
    pairs = [pair for pair in siblings if pair[0]["split"] == "test"]
    for pair, drawn in zip(pairs, draw(siblings, split="test", limit=None), strict=True):
        for record, questions in zip(pair, drawn, strict=True):
            if len(record["things"]) > 1:
                continue
            left_out = set(applicable_questions(record)) - set(questions)
            assert {question.template for question in left_out} <= set(KEPT_SHARES)


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_dominates(siblings: list[Any], split: str) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    limit = 3 if split == "train" else None
    for pair in draw(siblings, split=split, limit=limit):
        for question in (question for questions in pair for question in questions):
            answers[question.answer_type][question.answer] += 1
    assert set(answers) == {"what", "who", "how", "where", "when", "which way"}
    for counts in answers.values():
        assert max(counts.values()) <= 0.5 * counts.total()


def test_which_way_questions_are_drawn_first(siblings: list[Any]) -> None:
    for pair, all_drawn, one_drawn in zip(
        [pair for pair in siblings if pair[0]["split"] == "train"],
        draw(siblings, split="train", limit=None),
        draw(siblings, split="train", limit=1),
        strict=True,
    ):
        for _, every, only in zip(pair, all_drawn, one_drawn, strict=True):
            if "which way" in {question.answer_type for question in every}:
                assert only[0].answer_type == "which way"


def test_training_has_every_answer_of_the_test(siblings: list[Any]) -> None:
    answers: dict[str, set[str]] = defaultdict(set)
    for record in (record for pair in siblings for record in pair):
        answers[record["split"]] |= {question.answer for question in applicable_questions(record)}
    assert answers["test"] <= answers["train"]
    assert 20 <= len(answers["train"]) <= 45
