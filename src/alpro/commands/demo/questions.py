"""Questions about a clip: about things, places, counts and moments.

Everything is derived from the clip's record in ``scenes.jsonl``. A question is asked only if its
answer is unambiguous. Siblings get the same questions as far as possible: those that only time
decides (which way, when, who first) then have the same words and different answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alpro.commands.demo.captions import PHRASES
from alpro.commands.demo.scenes import MOVES
from alpro.commands.demo.trajectories import NUM_FRAMES

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one clip, made of one of ``TEMPLATES``; its type is how it begins."""

    template: str
    text: str
    answer: str
    answer_type: str


@dataclass(frozen=True, slots=True)
class Action:
    """A kind of action that stays what it is when time runs backwards."""

    do: str
    does: str


MOVE = Action("move", "moves")
RESIZE = Action("change size", "changes size")
ACTION_KINDS = {
    **{move: MOVE for move in MOVES},
    "grow": RESIZE,
    "shrink": RESIZE,
    "blink": Action("blink", "blinks"),
    "spin": Action("spin", "spins"),
}
"""Name of an action -> its kind."""

# {thing}: "red square". {do}, {does}: an action's verb. {which}: one of WHICH.
COLOR_OF = "what color is the {shape}?"
SHAPE_OF = "what shape is {color}?"
ACTION_OF = "what does the {thing} do?"
ACTION_IN_ORDER = "what does the {thing} do {which}?"
COLOR_OF_DOER = "what color is the shape that {does}?"
WHO = "who {does}?"
NUM_THINGS = "how many shapes are there?"
NUM_MOVING = "how many shapes move?"
NUM_ACTIONS = "how many things does the {thing} do?"
COUNTING = (NUM_THINGS, NUM_MOVING)
RESIZING = "how does the {thing} change size?"
WHERE = "where is the {thing}?"
WHERE_MOVING = "where does the {thing} move?"
WHEN = "when does the {thing} {do}?"
WHICH_WAY = "which way does the {thing} move?"
WHICH_WAY_IN_ORDER = "which way does the {thing} move {which}?"
WHICH = ("first", "last")
ACTS_IN_ORDER = tuple(f"acts {which}" for which in WHICH)

TEMPLATES = (
    *(COLOR_OF, SHAPE_OF, ACTION_OF, ACTION_IN_ORDER, COLOR_OF_DOER, WHO),
    *(NUM_THINGS, NUM_MOVING, NUM_ACTIONS, RESIZING, WHERE, WHERE_MOVING),
    *(WHEN, WHICH_WAY, WHICH_WAY_IN_ORDER),
)

ACTION_ANSWERS = {
    **{move: f"move {move}" for move in MOVES},
    **{action: action for action in ("grow", "shrink", "blink", "spin")},
}
COUNT_ANSWERS = ("none", "one", "two")
FIRST_HALF, LAST_HALF, WHOLE = "at the start", "at the end", "all the time"
CLEAR_OF_CENTRE = 0.08
"""Share of the picture by which a thing must be off a middle line to be on one side of it."""

DRAWN_FIRST = "which way"
"""Answer type that every selection includes: direction takes longest to learn."""

KEPT_SHARES = {
    COLOR_OF: {"": 0.5},
    SHAPE_OF: {"": 0.5},
    NUM_THINGS: {"one": 0.25, "two": 0.6},
    NUM_MOVING: {"one": 0.45},
    NUM_ACTIONS: {"one": 0.6, "two": 0.5},
}
"""Template -> answer ("": any) -> share of the pairs that are asked.

Thus no answer dominates, and questions that one frame answers do not outnumber the others.
"""

CROWDED_SHARE = 0.35
"""Share of the questions about one of two things that are asked, on top of ``KEPT_SHARES``: such
clips have twice as many questions, and distinguishing the things is the hardest to learn."""


def applicable_questions(record: Record) -> list[Question]:
    """Return all questions that the clip of a record answers clearly."""
    askers = (_ask_what, _ask_who, _ask_how, _ask_where, _ask_when, _ask_which_way)
    return [question for ask in askers for question in ask(record)]


def draw_questions(
    siblings: Sequence[Record], *, num_questions: int | None, rng: np.random.Generator
) -> list[list[Question]]:
    """Choose the questions of the clips of a pair.

    Args:
        siblings: records of the pair's clips.
        num_questions: at most so many per clip, the same ones for both where they apply; None: all
            but those thinned out by ``KEPT_SHARES``.
        rng: source of all randomness.
    """
    asked = [applicable_questions(record) for record in siblings]
    # Order and luck belong to a question's text, so that siblings share them.
    texts = list(dict.fromkeys(question.text for each in asked for question in each))
    places = dict(zip(texts, rng.permutation(len(texts)).tolist(), strict=True))
    luck = dict(zip(texts, rng.random(len(texts)).tolist(), strict=True))
    chosen = []
    for record, questions in zip(siblings, asked, strict=True):
        num_things = len(record["things"])
        kept = [q for q in questions if luck[q.text] < _kept_share(q, num_things=num_things)]
        # Questions about direction come first, the rest in random order.
        by_turn = sorted(kept, key=lambda q: (q.answer_type != DRAWN_FIRST, places[q.text]))
        drawn = by_turn[:num_questions]
        chosen.append([question for question in kept if question in drawn])
    return chosen


def _kept_share(question: Question, *, num_things: int) -> float:
    shares = KEPT_SHARES.get(question.template, {})
    share = shares.get(question.answer, shares.get("", 1.0))
    return share if num_things == 1 or question.template in COUNTING else share * CROWDED_SHARE


def _question(template: str, answer: str, **fields: str) -> Question:
    answer_type = "which way" if template.startswith("which way") else template.split()[0]
    return Question(template, template.format(**fields), answer, answer_type)


def _ask_what(record: Record) -> Iterator[Question]:
    things = record["things"]
    for number, thing in enumerate(things):
        if _all_differ(things, "shape"):
            yield _question(COLOR_OF, thing["color"], shape=thing["shape"])
        if _all_differ(things, "color"):
            yield _question(SHAPE_OF, thing["shape"], color=thing["color"])
        answers = [ACTION_ANSWERS[action] for action in _actions(record, number)]
        if len(answers) == 1:
            yield _question(ACTION_OF, answers[0], thing=_name(thing))
        else:
            for which, answer in zip(WHICH, answers, strict=True):
                yield _question(ACTION_IN_ORDER, answer, thing=_name(thing), which=which)
    if _all_differ(things, "color"):
        for does, doer in _doers(record):
            yield _question(COLOR_OF_DOER, doer["color"], does=does)


def _ask_who(record: Record) -> Iterator[Question]:
    things = record["things"]
    if len(things) == 1:  # the same question to both siblings, whatever comes first
        does = min(ACTION_KINDS[action].does for action in _actions(record, 0))
        yield _question(WHO, things[0]["shape"], does=does)
    elif _all_differ(things, "shape"):
        for does, doer in _doers(record):
            yield _question(WHO, doer["shape"], does=does)


def _ask_how(record: Record) -> Iterator[Question]:
    things = record["things"]
    yield _question(NUM_THINGS, COUNT_ANSWERS[len(things)])
    moving = {event["thing"] for event in record["events"] if event["action"] in MOVES}
    yield _question(NUM_MOVING, COUNT_ANSWERS[len(moving)])
    for number, thing in enumerate(things):
        actions = _actions(record, number)
        if len(things) == 1:  # of two things each does one
            yield _question(NUM_ACTIONS, COUNT_ANSWERS[len(actions)], thing=_name(thing))
        resizing = [action for action in actions if ACTION_KINDS[action] is RESIZE]
        if len(resizing) == 1:
            yield _question(RESIZING, ACTION_ANSWERS[resizing[0]], thing=_name(thing))


def _ask_where(record: Record) -> Iterator[Question]:
    for number, thing in enumerate(record["things"]):
        x, y = thing["start"]
        row, column = _side(y, "top", "bottom"), _side(x, "left", "right")
        actions = _actions(record, number)
        moves = [action for action in actions if action in MOVES]
        if len(moves) == 1:  # along a line, which stays on its side of the picture
            side = row if moves[0] in ("left", "right") else column
            if side:
                yield _question(WHERE_MOVING, f"at the {side}", thing=_name(thing))
        elif row and column and not moves and actions != ["blink"]:  # might be seen in no frame
            yield _question(WHERE, f"{row} {column}", thing=_name(thing))


def _ask_when(record: Record) -> Iterator[Question]:
    for event in record["events"]:
        deed = ACTION_KINDS[event["action"]]
        deeds = [ACTION_KINDS[action] for action in _actions(record, event["thing"])]
        if deeds.count(deed) == 1:
            name = _name(record["things"][event["thing"]])
            yield _question(WHEN, _moment(event), thing=name, do=deed.do)


def _ask_which_way(record: Record) -> Iterator[Question]:
    for number, thing in enumerate(record["things"]):
        moves = [action for action in _actions(record, number) if action in MOVES]
        if len(moves) == 1:
            yield _question(WHICH_WAY, moves[0], thing=_name(thing))
        elif moves:
            for which, move in zip(WHICH, moves, strict=True):
                yield _question(WHICH_WAY_IN_ORDER, move, thing=_name(thing), which=which)


def _doers(record: Record) -> Iterator[tuple[str, Record]]:
    """Phrases for actions that only one of two things performs, with that thing."""
    if len(record["things"]) == 1:
        return
    events = record["events"]
    deeds = [ACTION_KINDS[event["action"]] for event in events]
    for event, deed in zip(events, deeds, strict=True):
        thing = record["things"][event["thing"]]
        if deeds.count(deed) == 1:
            yield deed.does, thing
        elif len({event["action"] for event in events}) > 1:
            yield PHRASES[event["action"]].finite, thing
    if record["kind"] == "turns":
        for acts, event in zip(ACTS_IN_ORDER, events, strict=True):
            yield acts, record["things"][event["thing"]]


def _name(thing: Record) -> str:
    return f"{thing['color']} {thing['shape']}"


def _actions(record: Record, number: int) -> list[str]:
    """Actions of the thing with this number, in order of time."""
    return [event["action"] for event in record["events"] if event["thing"] == number]


def _all_differ(things: Sequence[Record], key: str) -> bool:
    return len({thing[key] for thing in things}) == len(things)


def _side(position: float, low: str, high: str) -> str | None:
    """Name the half of the picture with a position, None near the middle."""
    if abs(position - 0.5) < CLEAR_OF_CENTRE:
        return None
    return low if position < 0.5 else high


def _moment(event: Record) -> str:
    if event["end"] < NUM_FRAMES:
        return FIRST_HALF
    return LAST_HALF if event["begin"] > 0 else WHOLE
