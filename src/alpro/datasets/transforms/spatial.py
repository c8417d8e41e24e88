"""Crops, flips and repetition of the frames of a clip.

Steps take (T, 3, H, W) uint8 frames and the generator of all their random choices, and leave the
given array as it is. An image is a clip of one frame.

Shapes: ``T`` frames, ``H`` height, ``W`` width and ``S`` side of square frames in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alpro.datasets.video_datasets import FrameAugmentation


@dataclass(frozen=True)
class Pipeline:
    """Steps in order, all from one generator."""

    steps: tuple[FrameAugmentation, ...]

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Take (T, 3, H, W) frames through all steps."""
        for step in self.steps:
            frames = step(frames, rng)
        return frames


@dataclass(frozen=True)
class RandomCrop:
    """A square of ``size`` pixels anywhere in the frames, the same in all of them."""

    size: int

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Cut (T, 3, S, S) out of (T, 3, H, W) frames."""
        height, width = _room(frames, self.size)
        top = rng.integers(height, endpoint=True)  # the original draws the height first
        left = rng.integers(width, endpoint=True)
        return _square(frames, top=int(top), left=int(left), size=self.size)


@dataclass(frozen=True)
class CentreCrop:
    """The square of ``size`` pixels in the middle of the frames."""

    size: int

    def __call__(self, frames: np.ndarray, _: np.random.Generator) -> np.ndarray:
        """Cut (T, 3, S, S) out of (T, 3, H, W) frames."""
        height, width = _room(frames, self.size)
        return _square(frames, top=height // 2, left=width // 2, size=self.size)


@dataclass(frozen=True)
class RandomFlip:
    """All frames or none of them left to right, as often as ``probability`` says."""

    probability: float

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Flip (T, 3, H, W) frames, or return them as they are."""
        if rng.random() >= self.probability:
            return frames
        return np.ascontiguousarray(frames[..., ::-1])


@dataclass(frozen=True)
class RepeatFrames:
    """A still image as a clip of ``num_frames`` identical frames."""

    num_frames: int

    def __call__(self, frames: np.ndarray, _: np.random.Generator) -> np.ndarray:
        """Repeat the one frame (1, 3, H, W)."""
        if len(frames) != 1:
            raise ValueError(f"{len(frames)} frames are no still image")
        return np.repeat(frames, self.num_frames, axis=0)


def _room(frames: np.ndarray, size: int) -> tuple[int, int]:
    """Room to move a square of ``size`` pixels, down and to the right."""
    height, width = frames.shape[-2:]
    if size > min(height, width):
        raise ValueError(f"no square of {size} pixels in frames of {height} x {width}")
    return height - size, width - size


def _square(frames: np.ndarray, *, top: int, left: int, size: int) -> np.ndarray:
    return np.ascontiguousarray(frames[..., top : top + size, left : left + size])
