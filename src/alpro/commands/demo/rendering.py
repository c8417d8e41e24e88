"""Rendering of scenes: backgrounds and antialiased shapes, a whole clip at once.

Symbols: T frames, S side of the picture in pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from alpro.commands.demo.scenes import Scene
from alpro.commands.demo.trajectories import SIZE, Track

RGB = {
    "red": (228, 38, 38),
    "green": (36, 178, 62),
    "blue": (52, 88, 240),
    "yellow": (250, 214, 36),
    "pink": (238, 70, 214),
    "white": (246, 246, 246),
}
OUTLINE_WIDTH = 1.3
"""Pixels."""
OUTLINE_SHADE = 0.55
"""Brightness of the outline relative to the inside."""


def render(scene: Scene, tracks: list[Track], *, rng: np.random.Generator) -> np.ndarray:
    """Draw all frames of a scene: uint8 (T, S, S, 3), RGB."""
    picture = BACKGROUND_PAINTERS[scene.background](rng) + HUES[scene.background]
    frames = np.repeat(picture[None], len(tracks[0].x), axis=0)  # (T, S, S, 3)
    for thing, track in zip(scene.things, tracks, strict=True):
        _draw(frames, track, shape=thing.shape, color=np.array(RGB[thing.color], np.float32))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _draw(frames: np.ndarray, track: Track, *, shape: str, color: np.ndarray) -> None:
    """Draw one thing onto float frames (T, S, S, 3), in place."""
    x, y, radius, angle, opacity = (
        values.astype(np.float32)[:, None, None]
        for values in (track.x, track.y, track.radius, track.angle, track.opacity)
    )
    rows, columns = _pixel_centres()
    # Coordinates relative to the thing, rotated and in units of its radius.
    right, down = columns - x, rows - y  # (T, S, S)
    cos, sin = np.cos(angle), np.sin(angle)
    u, v = (right * cos + down * sin) / radius, (down * cos - right * sin) / radius
    outside = SHAPE_DISTANCES[shape](u, v) * radius  # pixels to the outline, negative inside
    # Antialiasing: coverage falls from 1 to 0 within a pixel of the outline.
    cover = np.clip(0.5 - outside, 0.0, 1.0) * opacity
    inner = np.clip(0.5 - outside - OUTLINE_WIDTH, 0.0, 1.0)
    shade = OUTLINE_SHADE + (1.0 - OUTLINE_SHADE) * inner
    frames += cover[..., None] * (shade[..., None] * color - frames)


def _pixel_centres() -> tuple[np.ndarray, np.ndarray]:
    centres = np.arange(SIZE, dtype=np.float32) + 0.5
    return centres[:, None], centres[None, :]


# Signed distances to the outline in units of the radius, u to the right, v downwards.


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 0.82


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    sides = np.maximum(0.866 * np.abs(u) - 0.5 * v, v)
    return sides - 0.56


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(u, v) - 0.98, np.minimum(u, v) - 0.32)


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Two discs on the upper sides of a square that stands on its corner."""
    u, v = np.abs(u), v + 0.05
    diamond = (u + np.abs(v)) * 0.7071 - 0.62
    disc = np.hypot(u - 0.44, v + 0.44) - 0.6
    return np.minimum(diamond, disc)


SHAPE_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "heart": _heart,
}

# Backgrounds: float32 (S, S, 3), dark so that every thing stands out.

DARK = (28.0, 70.0)
CONTRAST = (14.0, 26.0)
"""Grey levels; stronger patterns delay the learning of motion."""
TINT = 12.0


def _colored(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give grey levels (S, S) a slight tint: (S, S, 3)."""
    return (levels[..., None] + rng.uniform(-TINT, TINT, size=3)).astype(np.float32)


def _mixed(pattern: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Map a pattern (S, S) in 0..1 to a dark and a lighter level."""
    return _colored(rng.uniform(*DARK) + rng.uniform(*CONTRAST) * pattern, rng)


def _rotated(rng: np.random.Generator) -> np.ndarray:
    """Return the coordinate of each pixel along a random direction, about the centre: (S, S)."""
    rows, columns = _pixel_centres()
    angle = rng.uniform(0.0, 2 * np.pi)
    return (columns - SIZE / 2) * np.cos(angle) + (rows - SIZE / 2) * np.sin(angle)


def _plain(rng: np.random.Generator) -> np.ndarray:
    return _mixed(np.full((SIZE, SIZE), rng.random()), rng)


def _shaded(rng: np.random.Generator) -> np.ndarray:
    return _mixed(1.4 * np.clip(0.5 + _rotated(rng) / SIZE, 0.0, 1.0), rng)


def _grainy(rng: np.random.Generator) -> np.ndarray:
    grain = rng.random((SIZE // 2, SIZE // 2))
    return _mixed(np.kron(grain, np.ones((2, 2))), rng)


def _striped(rng: np.random.Generator) -> np.ndarray:
    period = rng.uniform(7.0, 13.0)
    wave = np.sin(2 * np.pi * (_rotated(rng) / period + rng.random()))
    return _mixed(np.clip(0.5 + 1.5 * wave, 0.0, 1.0), rng)


def _checked(rng: np.random.Generator) -> np.ndarray:
    cell = rng.uniform(6.0, 11.0)
    rows, columns = _pixel_centres()
    row_wave = np.sin(np.pi * (rows / cell + rng.random()))
    column_wave = np.sin(np.pi * (columns / cell + rng.random()))
    return _mixed(np.clip(0.5 + 4.0 * row_wave * column_wave, 0.0, 1.0), rng)


def _dotted(rng: np.random.Generator) -> np.ndarray:
    pitch = rng.uniform(9.0, 14.0)
    rows, columns = _pixel_centres()
    down = (rows + rng.uniform(0, pitch)) % pitch - pitch / 2
    right = (columns + rng.uniform(0, pitch)) % pitch - pitch / 2
    return _mixed(np.clip(0.5 + 0.28 * pitch - np.hypot(right, down), 0.0, 1.0), rng)


HUES: dict[str, np.ndarray] = {
    name: np.array(levels, np.float32)
    for name, levels in {
        "plain": (0, 0, 0),
        "shaded": (-14, -2, 36),
        "grainy": (34, 18, -14),
        "striped": (-18, 20, 24),
        "checked": (38, -10, -4),
        "dotted": (-14, 26, -16),
    }.items()
}
"""What is added to the levels of each background. By patterns alone the demo's model did not
learn to distinguish them in its few minutes."""

BACKGROUND_PAINTERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "plain": _plain,
    "shaded": _shaded,
    "grainy": _grainy,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
}
