"""Pixel preprocessing of a model family: size, resize policy, value range, channel order.

Everything up to the range of values happens where frames are read, in uint8; nothing heavy is
imported, since decoding may have a process of its own. :class:`Normalize` does the rest.

Shapes: ``T`` frames, ``H`` height, ``W`` width and ``S`` side of the square frames in pixels.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Interpolation = Literal["bilinear", "bicubic"]

# Reach of each filter to either side, in source pixels where it is not widened.
_RADIUS = {"bilinear": 1, "bicubic": 2}
# Parameter of the cubic filter (Keys, 1981): Pillow's, and PyTorch's without antialiasing.
_ANTIALIASED_CUBIC, _PLAIN_CUBIC = -0.5, -0.75
_MAX_PIXEL = 255


@dataclass(frozen=True, kw_only=True)
class PixelPreprocessing:
    """Steps from a decoded frame to the model's input; the defaults are ALPRO's."""

    size: int
    """S, the side of the square frames in pixels."""
    resize: Literal["squash", "center_crop", "pad", "center_square"] = "squash"
    """``squash``: both sides to S. ``center_crop``: the shorter side to S, then the square in the
    middle. ``pad``: the longer side to S, then zeros on the right and below, from which the mean is
    subtracted like from any pixel. ``center_square``: the largest square in the middle, then S."""
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    """Whether the filter is widened where frames shrink."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Of R, G, B in this order, on the scale of ``scale``; so is ``std``."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    scale: Literal[1, 255] = 1
    """Value of a white pixel before the mean is subtracted."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Order of the model's input channels."""

    @property
    def resized_by_decoder(self) -> bool:
        """Whether the decoding libraries resize so while they convert colours."""
        return (self.resize, self.interpolation, self.antialias) == ("squash", "bilinear", True)

    def protocol(self) -> dict[str, Any]:
        """Fields that differ from ALPRO's, without those that a config states by itself."""
        default = asdict(PixelPreprocessing(size=self.size, mean=self.mean, std=self.std))
        return {key: value for key, value in asdict(self).items() if value != default[key]}


def resized_size(height: int, width: int, preprocessing: PixelPreprocessing) -> tuple[int, int]:
    """Height and width after resizing, before the crop or the padding; fractions are cut off."""
    size = preprocessing.size
    if preprocessing.resize == "center_crop":
        shorter = min(height, width)
        return size * height // shorter, size * width // shorter
    if preprocessing.resize == "pad":
        if height >= width:
            return size, max(int(size * (width / height)), 1)
        return max(int(size * (height / width)), 1), size
    return size, size


def center_square(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the largest square in the middle of a frame."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def preprocess_frames(frames: np.ndarray, preprocessing: PixelPreprocessing) -> np.ndarray:
    """Make (..., S, S) uint8 frames of (..., H, W) ones."""
    # Crop first where the policy says so.
    if preprocessing.resize == "center_square":
        top, left, side = center_square(*frames.shape[-2:])
        frames = frames[..., top : top + side, left : left + side]
    # Resize; round half to even, and clip where the cubic filter overshoots.
    source_height, source_width = frames.shape[-2:]
    height, width = resized_size(source_height, source_width, preprocessing)
    if (height, width) != (source_height, source_width):
        resized = resize_frames(
            frames,
            height=height,
            width=width,
            interpolation=preprocessing.interpolation,
            antialias=preprocessing.antialias,
        )
        frames = np.rint(resized).clip(0, _MAX_PIXEL).astype(np.uint8)
    # Crop or pad to the square.
    return crop_or_pad(frames, preprocessing.size)


def crop_or_pad(frames: np.ndarray, size: int) -> np.ndarray:
    """Cut out the middle of (..., H, W) along sides longer than S, zero-pad the end of others."""
    height, width = frames.shape[-2:]
    # Half pixels go to the even number, as in torchvision's CenterCrop.
    top, left = max(round((height - size) / 2), 0), max(round((width - size) / 2), 0)
    frames = frames[..., top : top + size, left : left + size]
    if min(height, width) >= size:
        return np.ascontiguousarray(frames)
    padded = np.zeros((*frames.shape[:-2], size, size), frames.dtype)
    padded[..., :height, :width] = frames
    return padded


def resize_frames(
    frames: np.ndarray, *, height: int, width: int, interpolation: Interpolation, antialias: bool
) -> np.ndarray:
    """Resize (..., H, W) to float32 (..., height, width), neither rounded nor clipped.

    It is PyTorch's ``interpolate`` with ``align_corners=False``, up to the rounding of floats.
    """
    resized = frames
    for axis, length in ((-2, height), (-1, width)):
        if resized.shape[axis] == length:
            continue
        # Filter one axis at a time, as a weighted sum over the filter's taps.
        positions, weights = filter_taps(
            resized.shape[axis], length, interpolation=interpolation, antialias=antialias
        )
        shape = (length, 1) if axis == -2 else (length,)
        total = np.zeros((), np.float32)
        for position, weight in zip(positions.T, weights.T, strict=True):
            total = total + resized.take(position, axis) * weight.reshape(shape)
        resized = total
    return resized.astype(np.float32, copy=False)


def filter_taps(
    source: int, target: int, *, interpolation: Interpolation, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Source positions and float32 weights, both (target, taps), of each target position.

    Beyond the edge its pixel is repeated; an antialiasing filter ends there instead.
    """
    # Find the taps around each target pixel's centre; antialiasing widens the filter.
    ratio = source / target
    stretch = max(ratio, 1.0) if antialias else 1.0
    radius = _RADIUS[interpolation] * stretch
    centers = ((np.arange(target) + 0.5) * ratio - 0.5)[:, None]
    positions = np.floor(centers - radius).astype(np.int64) + 1 + np.arange(math.ceil(2 * radius))
    # Weight them by their distance from it.
    distances = np.abs(positions - centers) / stretch
    if interpolation == "bilinear":
        weights = np.maximum(1 - distances, 0)
    else:
        weights = _cubic(distances, _ANTIALIASED_CUBIC if antialias else _PLAIN_CUBIC)
    # Only PyTorch's plain filter repeats the edge.
    if antialias:
        weights *= (positions >= 0) & (positions < source)
        weights /= weights.sum(axis=1, keepdims=True)
    return positions.clip(0, source - 1), weights.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
