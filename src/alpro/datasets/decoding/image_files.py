"""Image files as media: still images, and folders of frames extracted from a video.

Shapes: ``T`` wanted frames, ``S`` their side in pixels.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpro.datasets.decoding.base import Decoder, FrameSelector, Loader, Video, VideoReadError
from alpro.datasets.decoding.formats import described_content
from alpro.datasets.transforms.preprocessing import (
    PixelPreprocessing,
    center_square,
    crop_or_pad,
    preprocess_frames,
    resized_size,
)
from alpro.errors import raise_scarcity
from alpro.installation import has_package

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp")
_SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF.{4}WEBP", re.DOTALL)

# Exceptions of Pillow's readers for damaged files.
_DAMAGES = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError),
    *(AttributeError, OverflowError, ZeroDivisionError, struct.error, zlib.error),
)
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")


@dataclass(frozen=True)
class MediaDecoder:
    """Reads images and folders of frames, and leaves videos to another decoder.

    An image is a video of one frame. The images of a folder are its frames, in the order of the
    numbers in their names, all of one size.
    """

    videos: Decoder

    def load(self) -> None:
        if isinstance(self.videos, Loader):
            self.videos.load()

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        if isinstance(video, Path) and os.path.isdir(video):
            files: Sequence[Video] = frames_in(video)
        elif is_image(video):
            files = [video]
        else:
            return self.videos.read(video, select, preprocessing=preprocessing)
        if not has_package("PIL"):
            raise VideoReadError("images need Pillow, which is not installed: `pip install pillow`")
        # Read each selected image once; the frames of a video have one size.
        wanted = select(len(files)).tolist()
        read: dict[int, np.ndarray] = {}
        sizes: dict[tuple[int, int], str] = {}
        for number in sorted({*wanted}):
            image = _read_named(files[number])
            sizes.setdefault(image.size, _name_of(files[number]))
            if len(sizes) > 1:
                both = [f"{name} {wide} x {tall}" for (wide, tall), name in sizes.items()]
                raise VideoReadError(f"frames of different sizes: {', '.join(both)}")
            read[number] = preprocess_image(image, preprocessing)
        return np.stack([read[number] for number in wanted])  # (T, 3, S, S)


def is_image(file: Video) -> bool:
    """Return whether a file is a still image: by its extension, or bytes by their signature.

    A picture with a video's extension does not count: it replaces a video by mistake.
    """
    if isinstance(file, Path):
        return file.suffix.lower() in IMAGE_EXTENSIONS
    # Bytes of an animated PNG are a video.
    return _SIGNATURE.match(file) is not None and b"acTL" not in file.partition(b"IDAT")[0]


def frames_in(folder: Path) -> list[Path]:
    """Return the images in a folder: ``frame_2.jpg`` before ``frame_10.jpg``.

    Raises:
        VideoReadError: there is none, or the folder cannot be listed.
    """
    try:
        names = [name for name in os.listdir(folder) if is_image(Path(name)) and name[0] != "."]
    except OSError as error:
        raise_scarcity(error)
        raise VideoReadError(f"the folder cannot be listed: {error.strerror}") from error
    if not names:
        known = ", ".join(IMAGE_EXTENSIONS)
        raise VideoReadError(f"no frames: no file in the folder ends in {known}")
    return [folder / name for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[list[str | int], str]:
    parts = re.split("([0-9]+)", name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def check_frames(folder: Path, num_frames: int) -> None:
    """Check that a folder holds the number of frames that its annotation states, or more.

    Raises:
        VideoReadError: naming the first frame that is missing in the numbering, if there are fewer.
    """
    files = frames_in(folder)
    if len(files) >= num_frames:
        return
    numbers = {int(digits[-1]) for file in files if (digits := re.findall("[0-9]+", file.stem))}
    first = int(num_frames in numbers and 0 not in numbers)  # numbers begin with 0, else with 1
    gap = next(number for number in range(first, first + num_frames) if number not in numbers)
    stem = re.sub("[0-9]+$", lambda last: f"{gap:0{len(last[0])}}", files[0].stem)
    raise VideoReadError(
        f"{len(files)} of {num_frames} frames, as the annotation's num_frame says; "
        f"{stem}{files[0].suffix} is missing"
    )


def _name_of(file: Video) -> str:
    return file.name if isinstance(file, Path) else ""


def _read_named(file: Video) -> Image:
    try:
        return read_image(file)
    except VideoReadError as error:
        name = _name_of(file)
        raise VideoReadError(f"{name}: {error}" if name else str(error)) from error


def preprocess_image(image: Image, preprocessing: PixelPreprocessing) -> np.ndarray:
    """Make (3, S, S) uint8 of an RGB image."""
    from PIL.Image import Resampling

    # Pillow always antialiases.
    if preprocessing.antialias:
        if preprocessing.resize == "center_square":
            top, left, side = center_square(image.height, image.width)
            image = image.crop((left, top, left + side, top + side))
        height, width = resized_size(image.height, image.width, preprocessing)
        image = image.resize((width, height), Resampling[preprocessing.interpolation.upper()])
        return crop_or_pad(np.asarray(image).transpose(2, 0, 1), preprocessing.size)
    return preprocess_frames(np.asarray(image).transpose(2, 0, 1), preprocessing)


@contextmanager
def open_image(file: Video) -> Iterator[Image]:
    """Open an image file, but of no format that holds a program, as EPS does.

    Raises:
        VideoReadError: the file is missing or damaged, or has more pixels than Pillow reads.
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(file, Path) and not os.path.isfile(file):
        raise VideoReadError(f"no file {file}")
    # Open it with Pillow, whose decompression-bomb warnings are errors here.
    source = BytesIO(file) if isinstance(file, bytes) else file
    Image.init()
    try:
        with warnings.catch_warnings():
            # Pillow only warns about images of 90 to 180 million pixels, and damaged EXIF data.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            formats = [name for name in _FORMATS if name in Image.OPEN]
            with Image.open(source, formats=formats) as image:
                yield image
    # Report every exception for a damaged file in one way.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise VideoReadError(f"Pillow: more pixels than it reads of an image ({error})") from error
    except UnidentifiedImageError as error:
        reason = f"cannot identify {described_content(file)} as an image"
        raise VideoReadError(f"Pillow: {reason}") from error
    except _DAMAGES as error:
        raise_scarcity(error)
        raise VideoReadError(f"Pillow: {str(error) or type(error).__name__}") from error


def read_image(file: Video) -> Image:
    """Read a whole file as RGB pixels, rotated as its EXIF data say.

    Raises:
        VideoReadError: as of `open_image`.
    """
    from PIL import Image, ImageOps

    with open_image(file) as opened:
        image = ImageOps.exif_transpose(opened)
        # Scale 16-bit greys to 8 bits; Pillow would clip them at 255.
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8))
        return image.convert("RGB")
