"""Augmentation: RandAugment (Cubuk et al., 2020), crops, flips and repetition of frames.

A change takes (T, 3, H, W) uint8 frames and the generator of all its random choices, is the same
for all frames of a clip, and leaves the given array as it is. An image is a clip of one frame.

T: frames, H: height, W: width, S: side of square frames in pixels.

Operations of RandAugment are made of torchvision's, with the original's arguments. Those on tensors
take and return (T, 3, S, S) uint8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from alpro.datasets.video_datasets import FrameAugmentation
from alpro.errors import InputError
from alpro.installation import has_package

MAX_LEVEL = 10
VIDEO_LEVEL = 5
IMAGE_LEVEL = 7
IMAGE_PROBABILITY = 0.5
VIDEO_OPERATIONS = (
    *("identity", "contrast", "brightness", "sharpness", "horizontal_flip"),
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
)
IMAGE_OPERATIONS = (
    *("identity", "brightness", "sharpness"),
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
)
BORDER = 128  # pixel value that fills what a moved frame leaves empty
PIXEL_CENTRE = 0.5  # torchvision's points are counted from the corner of the first pixel


@dataclass(frozen=True)
class Operation:
    """An operation, whose argument is `scale * strength + base`; `neutral` changes nothing."""

    apply: Callable[[Tensor, float], Tensor]
    scale: float = 1.0
    base: float = 0.0
    neutral: float | None = None

    def argument(self, strength: float) -> float:
        """The argument at a strength from 0 to 1."""
        return self.scale * strength + self.base


@dataclass(frozen=True)
class RandAugment:
    """Some operations drawn at random, applied to all frames of a clip alike.

    Args:
        operations: Names in `OPERATIONS` to draw from.
        num_operations: Number of operations drawn.
        level: Their strength, from 0 to `MAX_LEVEL`.
        with_replacement: The same operation may be drawn twice.
        probability: Of applying a drawn operation.

    Raises:
        InputError: torchvision, which moves the pixels, is not installed.
    """

    operations: tuple[str, ...]
    num_operations: int
    level: float
    with_replacement: bool = False
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not has_package("torchvision"):
            raise InputError(
                "augmentation: randaugment needs torchvision, which is not installed; "
                "`pip install torchvision`, or set augmentation to none"
            )

    def __call__(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change (T, 3, S, S) uint8 frames; the given array stays as it is."""
        chosen = rng.choice(
            len(self.operations), size=self.num_operations, replace=self.with_replacement
        )
        applied = chosen[rng.random(chosen.shape) < self.probability]
        changed = torch.from_numpy(frames)
        for index in applied:
            changed = apply_operation(changed, self.operations[index], level=self.level)
        return changed.numpy()


def video_augmentation() -> RandAugment:
    """The original's for clips of videos."""
    return RandAugment(VIDEO_OPERATIONS, num_operations=2, level=VIDEO_LEVEL)


def image_augmentation() -> RandAugment:
    """The original's for still images."""
    return RandAugment(
        IMAGE_OPERATIONS,
        num_operations=2,
        level=IMAGE_LEVEL,
        with_replacement=True,
        probability=IMAGE_PROBABILITY,
    )


def apply_operation(frames: Tensor, name: str, *, level: float) -> Tensor:
    """Apply one of `OPERATIONS` to (T, 3, S, S) uint8 frames, for nothing where it is neutral."""
    operation = OPERATIONS[name]
    argument = operation.argument(level / MAX_LEVEL)
    if operation.neutral is not None and math.isclose(argument, operation.neutral):
        return frames
    return operation.apply(frames, argument)


def _contrast(frames: Tensor, factor: float) -> Tensor:
    # The original weights the mean that it keeps with red and blue exchanged.
    return _torchvision().adjust_contrast(frames.flip(-3), factor).flip(-3)


def _adjust(what: str, frames: Tensor, factor: float) -> Tensor:
    return getattr(_torchvision(), f"adjust_{what}")(frames, factor)


def _angle(slope: float) -> float:
    return -math.degrees(math.atan(slope))


def _rotate(frames: Tensor, degrees: float) -> Tensor:
    """The content turns counter-clockwise about the pixel (S/2, S/2), as in the original."""
    height, width = frames.shape[-2:]
    return _move(frames, clockwise=-degrees, centre=(width / 2, height / 2))


def _move(
    frames: Tensor,
    *,
    clockwise: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    shear: tuple[float, float] = (0.0, 0.0),
    centre: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """Move the content of every frame; lengths in pixels, angles in degrees, points as (x, y).

    It is rotated clockwise, translated right and down, and sheared by angles to the left and up.
    Rotation and shear leave the pixel ``centre``, counted from (0, 0), where it is.
    """
    from torchvision.transforms.v2 import InterpolationMode

    # The border is made the zero that torchvision samples outside: its own fill darkens pixels at
    # the edge, where picture and border mix.
    moved = _torchvision().affine(
        frames.float().sub_(BORDER),
        angle=clockwise,
        translate=list(translate),
        scale=1.0,
        shear=list(shear),
        interpolation=InterpolationMode.BILINEAR,
        center=[pixel + PIXEL_CENTRE for pixel in centre],
    )
    return moved.add_(BORDER).round_().clamp_(0, 255).to(torch.uint8)


def _torchvision() -> ModuleType:
    """Imported when used: only training with augmentation needs it."""
    from torchvision.transforms.v2 import functional

    return functional


OPERATIONS = {
    "identity": Operation(lambda frames, _: frames),
    "contrast": Operation(_contrast, scale=1.8, base=0.1, neutral=1.0),
    "brightness": Operation(partial(_adjust, "brightness"), scale=1.8, base=0.1, neutral=1.0),
    "sharpness": Operation(partial(_adjust, "sharpness"), scale=1.8, base=0.1, neutral=1.0),
    "horizontal_flip": Operation(lambda frames, _: _torchvision().horizontal_flip(frames)),
    # Rows move right, columns down, by the slope times their number.
    "shear_x": Operation(lambda x, k: _move(x, shear=(_angle(k), 0.0)), scale=0.3, neutral=0.0),
    "shear_y": Operation(lambda x, k: _move(x, shear=(0.0, _angle(k))), scale=0.3, neutral=0.0),
    # The content moves left and up.
    "translate_x": Operation(lambda x, k: _move(x, translate=(-k, 0.0)), scale=10.0, neutral=0.0),
    "translate_y": Operation(lambda x, k: _move(x, translate=(0.0, -k)), scale=10.0, neutral=0.0),
    "rotate": Operation(_rotate, scale=30.0, neutral=0.0),
}
"""The original's operations; its table of levels gives the same arguments."""


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
