"""Content of a clip: things, their actions, and the reversed scene.

A `Scene` is the single source from which frames and captions are derived.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

COLORS = ("red", "green", "blue", "yellow", "pink", "white")
SHAPES = ("square", "triangle", "cross", "heart")
BACKGROUNDS = ("plain", "shaded", "grainy", "striped", "checked", "dotted")

MIRRORED_ACTION = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "grow": "shrink",
    "shrink": "grow",
    "blink": "blink",
    "spin": "spin",
}
"""Action -> the action seen when the clip is played backwards."""

ACTIONS = tuple(MIRRORED_ACTION)
MOVES = ("left", "right", "up", "down")
PASSING_SHARE = 0.5
"""Share of the "together" scenes in which two things pass each other."""

KINDS = ("single", "then", "turns", "together")
"""One action; two actions of one thing in a row; two things in a row; two things at once."""
KIND_SHARES = (0.30, 0.40, 0.20, 0.10)
STILL = "still"
"""The kind of an image, in which nothing happens."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One coloured shape."""

    color: str
    shape: str


@dataclass(frozen=True, slots=True)
class Event:
    """One action of the thing with number ``thing`` in its scene."""

    thing: int
    action: str


Action = tuple[str, str, str]
"""Color, shape, action."""
SceneKey = tuple[str, tuple[Action, ...]]


@dataclass(frozen=True, slots=True)
class Scene:
    """Things and what they do, events in order of time (at once for the kind "together")."""

    kind: str
    background: str
    things: tuple[Thing, ...]
    events: tuple[Event, ...]

    def mirrored(self) -> Scene:
        """Return the scene played backwards."""
        events = [replace(event, action=MIRRORED_ACTION[event.action]) for event in self.events]
        return replace(self, events=tuple(reversed(events)))

    def swapped(self) -> Scene:
        """Return the scene with the same events in the opposite order."""
        return replace(self, events=tuple(reversed(self.events)))

    @property
    def deeds(self) -> tuple[Action, ...]:
        """Thing and action of each event, in order of time."""
        doers = [self.things[event.thing] for event in self.events]
        return tuple(
            (doer.color, doer.shape, event.action)
            for doer, event in zip(doers, self.events, strict=True)
        )

    @property
    def key(self) -> SceneKey:
        """Identity of the scene: equal for scenes with the same captions."""
        deeds = tuple(sorted(self.deeds)) if self.kind == "together" else self.deeds
        return self.kind, deeds


def draw_scene(kind: str, *, rng: np.random.Generator) -> Scene:
    """Draw a scene of the kind that looks different when it is played backwards."""
    while True:
        scene = _draw_any_scene(kind, rng=rng)
        if scene.key != scene.mirrored().key:
            return scene


def draw_things(num_things: int, *, rng: np.random.Generator) -> tuple[Thing, ...]:
    """Draw things that differ from each other."""
    numbers = rng.choice(len(COLORS) * len(SHAPES), size=num_things, replace=False)
    return tuple(Thing(COLORS[n // len(SHAPES)], SHAPES[n % len(SHAPES)]) for n in numbers)


def _draw_any_scene(kind: str, *, rng: np.random.Generator) -> Scene:
    num_things = 1 if kind in ("single", "then") else 2
    num_events = 1 if kind == "single" else 2
    # The order of the draws is fixed: it determines the dataset.
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    things = draw_things(num_things, rng=rng)
    # One thing does two different things; two things may do the same.
    chosen = rng.choice(len(ACTIONS), size=num_events, replace=kind != "then")
    actions = [ACTIONS[number] for number in chosen]
    if kind == "together" and rng.random() < PASSING_SHARE:
        move = MOVES[rng.integers(len(MOVES))]
        actions = [move, MIRRORED_ACTION[move]]
    events = tuple(Event(min(i, num_things - 1), action) for i, action in enumerate(actions))
    return Scene(kind, background, things, events)
