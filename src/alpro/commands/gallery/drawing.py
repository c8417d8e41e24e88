"""What pictures of results have in common: strips of frames, bars, texts that fit, colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from alpro.commands.cli import open_videos_of_flag
from alpro.commands.gallery.lettering import draw_text, shortened
from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.sampling import frame_indices
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError

StripReader = Callable[[str], list[Image.Image]]
"""Video id -> square pictures of side ``TILE``."""

TILE = 56  # pixels of a frame's side; the following lengths are pixels too
TILE_GAP = 2
FRAME_WIDTH = 4
MARGIN = 24
TITLE_SIZE, LABEL_SIZE = 19, 15
BAR_HEIGHT, BAR_GAP = 18, 3
NAME_WIDTH, BAR_WIDTH, NUMBER_WIDTH = 130, 160, 44
TEXT_GAP = 8
PANEL_WIDTH = NAME_WIDTH + BAR_WIDTH + NUMBER_WIDTH

PAPER = (255, 255, 255)
INK = (28, 32, 38)
PALE = (112, 120, 130)
CORRECT = (22, 150, 72)
WRONG = (206, 210, 216)
UNREADABLE = (120, 120, 120)


class VideoStrips:
    """Reads evenly spaced frames of stored videos."""

    def __init__(self, videos: Path, *, num_frames: int) -> None:
        self._videos = open_videos_of_flag(videos)
        self._decoder = make_decoder("auto")
        self._num_frames = num_frames

    def __call__(self, video_id: str) -> list[Image.Image]:
        """Read a strip; grey tiles stand for a video that cannot be read.

        Raises:
            InputError: if there is no such video.
        """
        video = self._videos.fetch(video_id)
        if video is None:
            raise InputError(f"--videos {self._videos.root} holds no video {video_id!r}")
        try:
            evenly = partial(_evenly, num_frames=self._num_frames)
            preprocessing = PixelPreprocessing(size=TILE)
            frames = self._decoder.read(video, evenly, preprocessing=preprocessing)
        except VideoReadError:
            return [Image.new("RGB", (TILE, TILE), UNREADABLE)] * self._num_frames
        return [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]


def _evenly(num_video_frames: int, *, num_frames: int) -> np.ndarray:
    """Choose the middle of each of equally long stretches."""
    return frame_indices(
        "segment", num_video_frames=num_video_frames, num_frames=num_frames, rng=None
    )


def strip_width(num_frames: int) -> int:
    """The width of a strip with its outline."""
    return num_frames * (TILE + TILE_GAP) - TILE_GAP + 2 * FRAME_WIDTH


def draw_strip(
    sheet: Image.Image,
    strip: Sequence[Image.Image],
    *,
    left: int,
    top: int,
    outline: tuple[int, int, int],
) -> None:
    """Draw frames side by side, outlined."""
    right, bottom = left + strip_width(len(strip)) - 1, top + TILE + 2 * FRAME_WIDTH - 1
    ImageDraw.Draw(sheet).rectangle((left, top, right, bottom), fill=outline)
    paste_frames(sheet, strip, left=left + FRAME_WIDTH, top=top + FRAME_WIDTH)


def paste_frames(sheet: Image.Image, frames: Sequence[Image.Image], *, left: int, top: int) -> None:
    """Draw frames of any size side by side."""
    for frame in frames:
        sheet.paste(frame, (left, top))
        left += frame.width + TILE_GAP


def draw_bar(
    draw: ImageDraw.ImageDraw,
    name: str,
    probability: float,
    *,
    left: int,
    top: int,
    color: tuple[int, int, int],
    ink: tuple[int, int, int],
) -> None:
    """Draw a name, a bar as long as it is probable, and the number: ``PANEL_WIDTH`` in all."""
    middle, size = top + BAR_HEIGHT / 2, LABEL_SIZE
    name = shortened(name, size=size, room=NAME_WIDTH - TEXT_GAP)
    place = (left + NAME_WIDTH - TEXT_GAP, middle)
    draw_text(draw, place, name, size=size, fill=ink, from_right=True)
    start = left + NAME_WIDTH
    end = start + int(np.clip(probability, 0.0, 1.0) * (BAR_WIDTH - 1))
    draw.rectangle((start, top, end, top + BAR_HEIGHT - 1), fill=color)
    place = (left + PANEL_WIDTH, middle)
    draw_text(draw, place, f"{probability:.2f}", size=size, fill=ink, from_right=True)
