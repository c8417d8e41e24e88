"""Still images as clips of one frame.

S: side of the square frames in pixels.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.decoding.formats import described_content
from alpro.datasets.storage import folder_trouble, is_open_folder
from alpro.errors import InputError, raise_scarcity
from alpro.optional_packages import has_package

if TYPE_CHECKING:
    from PIL.Image import Image

# A random crop as the original's: torchvision's RandomResizedCrop with these numbers.
CROP_AREA = (0.2, 1.0)  # least and greatest share of the image
CROP_RATIO = (3 / 4, 4 / 3)  # least and greatest width over height
_CROP_ATTEMPTS = 10

# What Pillow's readers raise for damaged files of one format or another.
_DAMAGES = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError),
    *(AttributeError, OverflowError, ZeroDivisionError, struct.error, zlib.error),
)

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM")

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels."""


@dataclass(frozen=True)
class ImageReader:
    """How a set reads its images.

    Args:
        root: The folder that relative paths begin in; the current one where there is none.
        frame_size: S.
        random_crop: Whether a random part is read, or the largest square in the middle.

    Raises:
        InputError: the folder does not exist, or Pillow, which reads the files, is not installed.
    """

    root: Path | None
    frame_size: int
    random_crop: bool

    def __post_init__(self) -> None:
        if self.root is not None and not is_open_folder(self.root):
            raise InputError(
                f"images: {folder_trouble(self.root)}; the dataset's `img` must name the folder "
                "that its images' paths begin in, or be null"
            )
        if not has_package("PIL"):
            raise InputError("images: Pillow is not installed; `pip install pillow`")

    def read(self, image_id: str, *, rng: np.random.Generator | None) -> np.ndarray:
        """Read an image as one clip (1, 1, 3, S, S) of one uint8 frame, upright.

        Args:
            image_id: the path of its file.
            rng: where random crops are drawn from.

        Raises:
            VideoReadError: the file is missing or unreadable.
        """
        image = _read(Path(image_id) if self.root is None else self.root / image_id)
        box = self._box(image.width, image.height, rng)
        pixels = np.asarray(_resized(image, box, size=self.frame_size))  # (S, S, 3)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))[None, None]  # (1, 1, 3, S, S)

    def _box(self, width: int, height: int, rng: np.random.Generator | None) -> Box:
        if not self.random_crop:
            side = min(width, height)
            return _centred(width, height, side, side)
        if rng is None:
            raise ValueError("random crops need a generator")
        return draw_box(width, height, rng=rng)


def draw_box(width: int, height: int, *, rng: np.random.Generator) -> Box:
    """Draw the part of an image that a random crop keeps.

    Its share of the area and the logarithm of its ratio are uniform; where several draws do not fit
    into the image, it is the largest part in the middle whose ratio is allowed.
    """
    narrowest, widest = CROP_RATIO
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
        part_width = round(math.sqrt(area * ratio))
        part_height = round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            top = int(rng.integers(height - part_height + 1))
            left = int(rng.integers(width - part_width + 1))
            return left, top, left + part_width, top + part_height
    part_width = min(width, round(height * widest))
    part_height = min(height, round(width / narrowest))
    return _centred(width, height, max(part_width, 1), max(part_height, 1))


def _centred(width: int, height: int, part_width: int, part_height: int) -> Box:
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return left, top, left + part_width, top + part_height


@contextmanager
def open_image(path: Path) -> Iterator[Image]:
    """Open an image file, of a format that holds pictures and no program, as EPS does.

    Raises:
        VideoReadError: the file is missing or damaged, or has more pixels than Pillow reads.
    """
    from PIL import Image, UnidentifiedImageError

    if not os.path.isfile(path):
        raise VideoReadError(f"no file {path}")
    Image.init()
    try:
        with warnings.catch_warnings():
            # Pillow only warns of images of 90 to 180 million pixels, and of damaged EXIF data.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=[one for one in _FORMATS if one in Image.OPEN]) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise VideoReadError(f"Pillow: more pixels than it reads of an image ({error})") from error
    except UnidentifiedImageError as error:
        noun = described_content(path)
        raise VideoReadError(f"Pillow: cannot identify {noun} as an image") from error
    except _DAMAGES as error:
        raise_scarcity(error)
        raise VideoReadError(f"Pillow: {str(error) or type(error).__name__}") from error


def _read(path: Path) -> Image:
    """Read a whole file as RGB pixels, turned as its EXIF data say."""
    from PIL import ImageOps

    with open_image(path) as image:
        return _eight_bit(ImageOps.exif_transpose(image)).convert("RGB")


def _eight_bit(image: Image) -> Image:
    """The image, in 8 bits where it is of 16-bit greys, which Pillow would cut off at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 0xFFFF) >> 8).astype(np.uint8))


def _resized(image: Image, box: Box, *, size: int) -> Image:
    """Resize a part of the image; cut out first, so that nothing around it is mixed in."""
    from PIL.Image import Resampling

    return image.crop(box).resize((size, size), Resampling.BICUBIC)
