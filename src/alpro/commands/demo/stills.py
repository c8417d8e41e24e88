"""Still images of the same world, with captions of things and places only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alpro.commands.demo.noise import IMAGE_WRAPPERS, web_captions
from alpro.commands.demo.rendering import render
from alpro.commands.demo.scenes import BACKGROUNDS, STILL, Scene, draw_things
from alpro.commands.demo.trajectories import MARGIN, MAX_TRIES, SIZE, TILT, Track, are_apart

STREAM, NOISE_STREAM = 4, 6
"""Keys of the streams of random numbers, distinct from those of the clips' splits."""
TWO_THINGS_SHARE = 0.4
RADIUS = {1: (9.0, 20.0), 2: (8.0, 13.0)}
"""Number of things -> range of the radius in pixels: a photo shows them larger than a clip does."""
CLEAR_OF_CENTRE = 0.12
"""Share of the picture by which a thing must be off the middle lines to be in one corner."""

# {a}, {b}: things.
LONELY_TEMPLATES = ("{a}", "there is {a}")
CORNER_TEMPLATES = ("{a} at the {corner}", "there is {a} at the {corner}")
RELATION_TEMPLATES = ("{a} {relation} {b}", "there is {a} {relation} {b}")
BESIDE, OVER = ("left of", "right of"), ("above", "below")
CORNERS = tuple(f"{row} {column}" for row in ("top", "bottom") for column in ("left", "right"))


@dataclass(frozen=True, slots=True)
class Still:
    """One image to be drawn; ``seed`` determines all randomness."""

    name: str
    scene: Scene
    caption: str
    seed: tuple[int, ...]

    def render(self) -> np.ndarray:
        """Draw the image: uint8 (S, S, 3), RGB."""
        rng = np.random.default_rng([*self.seed, 3])
        return render(self.scene, _stage(self.scene, self.seed), rng=rng)[0]


def plan_stills(*, num_images: int, seed: int) -> list[Still]:
    """Plan images, each with one noisy caption."""
    seeds = [(seed, STREAM, number) for number in range(num_images)]
    scenes = [_draw_scene(each) for each in seeds]
    captions = web_captions(
        [(_draw_caption(scene, each),) for scene, each in zip(scenes, seeds, strict=True)],
        backgrounds=[scene.background for scene in scenes],
        wrappers=IMAGE_WRAPPERS,
        rng=np.random.default_rng([seed, NOISE_STREAM, num_images]),
    )
    return [
        Still(f"image{number:05d}", scene, caption, each)
        for number, (scene, (caption,), each) in enumerate(
            zip(scenes, captions, seeds, strict=True)
        )
    ]


def _draw_scene(seed: tuple[int, ...]) -> Scene:
    rng = np.random.default_rng([*seed, 1])
    background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    num_things = 2 if rng.random() < TWO_THINGS_SHARE else 1
    return Scene(STILL, background, draw_things(num_things, rng=rng), ())


def _stage(scene: Scene, seed: tuple[int, ...]) -> list[Track]:
    """Place the things apart from each other: tracks of one frame."""
    rng = np.random.default_rng([*seed, 2])
    for _ in range(MAX_TRIES):
        tracks = [_place(len(scene.things), rng=rng) for _ in scene.things]
        if are_apart(tracks):
            break
    return tracks


def _place(num_things: int, *, rng: np.random.Generator) -> Track:
    radius = rng.uniform(*RADIUS[num_things])
    x, y = rng.uniform(MARGIN + radius, SIZE - MARGIN - radius, size=2)
    angle = rng.uniform(-TILT, TILT)
    return Track(*(np.array([value]) for value in (x, y, radius, angle, 1.0)))


def _draw_caption(scene: Scene, seed: tuple[int, ...]) -> str:
    places = [(float(track.x[0]), float(track.y[0])) for track in _stage(scene, seed)]
    names = [f"a {thing.color} {thing.shape}" for thing in scene.things]
    return describe(names, places, rng=np.random.default_rng([*seed, 4]))


def describe(
    names: Sequence[str], places: Sequence[tuple[float, float]], *, rng: np.random.Generator
) -> str:
    """Describe the things and their places, in one of the possible wordings.

    Args:
        names: of the one or two things.
        places: x and y of each in pixels, y downwards.
        rng: chooses the wording and which thing is named first.
    """
    wording = int(rng.integers(len(RELATION_TEMPLATES)))
    if len(names) == 1:
        corner = _corner(*places[0])
        templates = CORNER_TEMPLATES if corner else LONELY_TEMPLATES
        return templates[wording].format(a=names[0], corner=corner)
    # Two things: either may be named first.
    first = int(rng.integers(2))
    relation = _relation(places[first], places[1 - first])
    template = RELATION_TEMPLATES[wording]
    return template.format(a=names[first], b=names[1 - first], relation=relation)


def _corner(x: float, y: float) -> str | None:
    """Name the corner of a place, None near a middle line."""
    if min(abs(x / SIZE - 0.5), abs(y / SIZE - 0.5)) < CLEAR_OF_CENTRE:
        return None
    return CORNERS[2 * (y > SIZE / 2) + (x > SIZE / 2)]


def _relation(first: tuple[float, float], other: tuple[float, float]) -> str:
    """Name the side of the other place on which the first is, along the longer distance."""
    right, down = first[0] - other[0], first[1] - other[1]
    return BESIDE[right > 0] if abs(right) > abs(down) else OVER[down > 0]
