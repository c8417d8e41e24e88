"""Positions of all things in every frame: a scene becomes one `Track` per thing.

Symbols: T frames. Lengths are pixels of a square picture of side `SIZE`, y downwards; angles are
radians.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpro.commands.demo.scenes import Event, Scene

SIZE = 64
NUM_FRAMES = 16
FPS = 8

MARGIN = 1.0
"""Pixels kept free at the border."""
RADIUS = {1: (8.0, 10.0), 2: (7.0, 8.5)}
"""Number of things -> range of the radius of a thing that does not change its size."""
SMALL = {1: (5.5, 6.5), 2: (5.0, 6.0)}
LARGE = {1: (11.5, 13.0), 2: (9.5, 10.5)}
DISTANCE = {1: (28.0, 42.0), 2: (26.0, 36.0)}
SPIN = np.deg2rad((11.0, 14.0))
"""Radians per frame: between two sampled frames (4 apart) no shape turns onto itself."""
TILT = np.deg2rad(8.0)
BLINK_PERIOD = 3
"""Frames; one on, two off: of any two frames 4 apart at least one is off, of four one is on."""

STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MAX_TRIES = 60


@dataclass(frozen=True, slots=True)
class Track:
    """State of one thing in every frame, each (T,)."""

    x: np.ndarray
    y: np.ndarray
    radius: np.ndarray
    angle: np.ndarray
    opacity: np.ndarray

    def backwards(self) -> Track:
        """Return the track with its frames in reversed order."""
        return Track(
            x=self.x[::-1],
            y=self.y[::-1],
            radius=self.radius[::-1],
            angle=self.angle[::-1],
            opacity=self.opacity[::-1],
        )


def event_spans(scene: Scene) -> list[tuple[int, int]]:
    """Return first frame and end frame (exclusive) of each event."""
    if scene.kind in ("single", "together"):
        return [(0, NUM_FRAMES)] * len(scene.events)
    length = NUM_FRAMES // len(scene.events)
    return [(i * length, (i + 1) * length) for i in range(len(scene.events))]


def stage(scene: Scene, *, rng: np.random.Generator) -> list[Track]:
    """Place the scene's things; two overlap only if no free places exist."""
    best, best_gap = _draw_tracks(scene, rng=rng), -np.inf
    for _ in range(MAX_TRIES):
        tracks = _draw_tracks(scene, rng=rng)
        gap = _smallest_gap(tracks)
        if gap > best_gap:
            best, best_gap = tracks, gap
        if gap > 0:
            break
    return best


def are_apart(tracks: list[Track]) -> bool:
    """Whether no two of at most two things ever overlap."""
    return _smallest_gap(tracks) > 0


def _smallest_gap(tracks: list[Track]) -> float:
    if len(tracks) == 1:
        return np.inf
    a, b = tracks
    return float((np.hypot(a.x - b.x, a.y - b.y) - a.radius - b.radius).min())


def _draw_tracks(scene: Scene, *, rng: np.random.Generator) -> list[Track]:
    spans = event_spans(scene)
    tracks = []
    for number in range(len(scene.things)):
        timed = [
            (event, span)
            for event, span in zip(scene.events, spans, strict=True)
            if event.thing == number
        ]
        tracks.append(_draw_track(timed, num_things=len(scene.things), rng=rng))
    return tracks


def _draw_track(
    timed_events: list[tuple[Event, tuple[int, int]]],
    *,
    num_things: int,
    rng: np.random.Generator,
) -> Track:
    """Follow one thing through its events, then choose a start from which it stays inside."""
    # Size, angle and opacity over time.
    radius = np.full(NUM_FRAMES, rng.uniform(*RADIUS[num_things]))
    angle = np.full(NUM_FRAMES, rng.uniform(-TILT, TILT))
    opacity = np.ones(NUM_FRAMES)
    for event, span in timed_events:
        progress = _progress(*span)
        if event.action in ("grow", "shrink"):
            small, large = rng.uniform(*SMALL[num_things]), rng.uniform(*LARGE[num_things])
            first, last = (small, large) if event.action == "grow" else (large, small)
            radius = first + (last - first) * progress
        elif event.action == "spin":
            turn = rng.choice((-1.0, 1.0)) * rng.uniform(*SPIN) * (span[1] - span[0] - 1)
            angle = angle + turn * progress
        elif event.action == "blink":
            frames = np.arange(*span)
            opacity[frames] = (frames + rng.integers(BLINK_PERIOD)) % BLINK_PERIOD == 0
    # Moves add up to a path, which is then placed so that it stays inside.
    x, y = np.zeros(NUM_FRAMES), np.zeros(NUM_FRAMES)
    room = SIZE - 2 * (MARGIN + radius.max())
    shortest, longest = DISTANCE[num_things]
    for event, span in timed_events:
        if event.action in STEPS:
            distance = rng.uniform(shortest, min(longest, room))
            x = x + STEPS[event.action][0] * distance * _progress(*span)
            y = y + STEPS[event.action][1] * distance * _progress(*span)
    x, y = (_place(path, radius=radius, rng=rng) for path in (x, y))
    return Track(x=x, y=y, radius=radius, angle=angle, opacity=opacity)


def _progress(begin: int, end: int) -> np.ndarray:
    """Return 0 before the span, 1 after it, rising evenly in between: (T,)."""
    return np.clip((np.arange(NUM_FRAMES) - begin) / (end - 1 - begin), 0.0, 1.0)


def _place(path: np.ndarray, *, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lowest = MARGIN + (radius - path).max()
    highest = SIZE - MARGIN - (radius + path).max()
    return path + rng.uniform(lowest, max(lowest, highest))
