"""A model whose vectors tell the grey level of a window, and videos of known levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

import alpro
from alpro.datasets.decoding.base import VideoReadError
from alpro.datasets.decoding.image_files import IMAGE_EXTENSIONS
from alpro.datasets.decoding.windows import WindowPlan
from alpro.errors import InputError
from alpro.search.index import IndexSettings
from tests.datasets.clips import GREY_STEP, SMALL, write_clip, write_frames

NUM_LEVELS = 20
WINDOW, STRIDE = 1.0, 0.5  # seconds, of 8 frames each


def vector_of(level: float) -> np.ndarray:
    """(E,) float32 of length 1; those of neighbouring levels are alike."""
    vector = np.exp(-((np.arange(NUM_LEVELS) - level) ** 2) / 2).astype(np.float32)
    return vector / np.linalg.norm(vector)


class FakeModel:
    """Embeds windows and texts, "level 7", by the grey level."""

    can_embed, can_match, can_caption = True, True, False
    embed_dim = NUM_LEVELS
    preprocessing = SMALL

    def __init__(self, fingerprint: str = "fake") -> None:
        self.fingerprint = fingerprint
        self.num_encoded = 0

    def window_plan(self, **options: Any) -> WindowPlan:
        return WindowPlan(preprocessing=SMALL, num_frames=2, **options)

    def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        self.num_encoded += len(frames)
        levels = frames.mean(axis=(1, 2, 3, 4)) / GREY_STEP
        return np.stack([vector_of(level) for level in levels])

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([vector_of(float(text.split()[-1])) for text in texts])

    def encode_video(
        self, path: Path, *, start: float | None = None, end: float | None = None
    ) -> np.ndarray:
        if path.suffix in IMAGE_EXTENSIONS:
            return vector_of(np.asarray(Image.open(path)).mean() / GREY_STEP)
        plan = self.window_plan(window=1e9, start=start or 0.0, end=end or np.inf)
        try:
            return self.encode_frames(next(alpro.read_windows(path, plan=plan)).frames[None])[0]
        except VideoReadError as error:
            raise InputError(f"{path}: {error}") from error

    def match_frames(self, texts: Sequence[str], frames: np.ndarray) -> np.ndarray:
        # Brighter windows match better, whatever the text says.
        levels = frames.mean(axis=(1, 2, 3, 4)) / (GREY_STEP * NUM_LEVELS)
        return np.tile(levels, (len(texts), 1))


def fake_model(fingerprint: str = "fake") -> alpro.Model:
    return cast("alpro.Model", FakeModel(fingerprint))


def settings(**changes: Any) -> IndexSettings:
    values = {"model": "m", "fingerprint": "fake", "embed_dim": NUM_LEVELS}
    return IndexSettings(**{**values, "window": WINDOW, "stride": STRIDE, **changes})


def write_levels(path: Path, levels: Sequence[int]) -> Path:
    """Write half a second of each grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.repeat(np.array(levels, np.uint8) * GREY_STEP, 4)[:, None, None, None]
    return write_frames(path, np.broadcast_to(pixels, (len(pixels), 64, 64, 3)).copy())


def write_video(path: Path, *, num_frames: int = 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, num_frames=num_frames)
