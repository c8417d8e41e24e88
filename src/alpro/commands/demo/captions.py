"""Captions of scenes, in which direction and order of events matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from alpro.commands.demo.scenes import MIRRORED_ACTION, MOVES, Scene

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Phrase:
    """An action in words: "a square ``finite``", "before ``gerund``"."""

    finite: str
    gerund: str


# One wording per action: synonyms made the demo's model learn direction and order much later.
PHRASES = {
    "left": Phrase("moves left", "moving left"),
    "right": Phrase("moves right", "moving right"),
    "up": Phrase("moves up", "moving up"),
    "down": Phrase("moves down", "moving down"),
    "grow": Phrase("grows", "growing"),
    "shrink": Phrase("shrinks", "shrinking"),
    "blink": Phrase("blinks", "blinking"),
    "spin": Phrase("spins", "spinning"),
}

# {a}, {b}: the things of the first and second event; {x}, {y}: what they do.
TEMPLATES = {
    "single": ("{a} {x}", "there is {a} that {x}", "{a} is {x_ing}"),
    "then": (
        "{a} {x} and then {y}",
        "{a} first {x}, then {y}",
        "{a} {x} before {y_ing}",
        "after {x_ing}, {a} {y}",
    ),
    "turns": (
        "first {a} {x}, then {b} {y}",
        "{a} {x} and then {b} {y}",
        "{a} {x} before {b} {y}",
        "after {a} {x}, {b} {y}",
    ),
    "together": (
        "{a} {x} while {b} {y}",
        "{a} {x} and {b} {y} at the same time",
        "{a} is {x_ing} as {b} is {y_ing}",
    ),
}
PASSING_TEMPLATES = ("{a} {x_ing} passes {b} {y_ing}",)


def draw_captions(scene: Scene, *, num_captions: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Describe a scene in ``num_captions`` different wordings."""
    captions: list[str] = []
    while len(captions) < num_captions:
        caption = _draw_caption(scene, rng=rng)
        if caption not in captions:
            captions.append(caption)
    return tuple(captions)


def _draw_caption(scene: Scene, *, rng: np.random.Generator) -> str:
    events = list(scene.events)
    if scene.kind == "together" and rng.random() < 0.5:
        events.reverse()
    first, last = events[0], events[-1]
    templates = TEMPLATES[scene.kind]
    if _pass_each_other(scene):
        templates += PASSING_TEMPLATES
    x, y = PHRASES[first.action], PHRASES[last.action]
    names = [f"a {thing.color} {thing.shape}" for thing in scene.things]
    return _choose(templates, rng=rng).format(
        a=names[first.thing],
        b=names[last.thing],
        x=x.finite,
        x_ing=x.gerund,
        y=y.finite,
        y_ing=y.gerund,
    )


def _pass_each_other(scene: Scene) -> bool:
    actions = [event.action for event in scene.events]
    return (
        scene.kind == "together"
        and actions[0] in MOVES
        and actions[1] == MIRRORED_ACTION[actions[0]]
    )


def _choose(options: Sequence[T], *, rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]
