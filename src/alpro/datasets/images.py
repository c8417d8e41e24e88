"""Still images as clips of one frame.

S: side of the square frames in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alpro.datasets.decoding.image_files import preprocess_image, read_image
from alpro.datasets.storage import folder_trouble, is_open_folder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.installation import has_package

if TYPE_CHECKING:
    pass

# A random crop as the original's: torchvision's RandomResizedCrop with these numbers.
CROP_AREA = (0.2, 1.0)  # least and greatest share of the image
CROP_RATIO = (3 / 4, 4 / 3)  # least and greatest width over height
_CROP_ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels."""


@dataclass(frozen=True)
class ImageReader:
    """How a set reads its images.

    Args:
        root: The folder that relative paths begin in; the current one where there is none.
        preprocessing: Gives S and the resize policy.
        random_crop: Whether a random part is read and squashed, whatever the policy.

    Raises:
        InputError: the folder does not exist, or Pillow, which reads the files, is not installed.
    """

    root: Path | None
    preprocessing: PixelPreprocessing
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
        image = read_image(Path(image_id) if self.root is None else self.root / image_id)
        preprocessing = self.preprocessing
        if self.random_crop:
            if rng is None:
                raise ValueError("random crops need a generator")
            # Cut out before it is resized, so that nothing around it is mixed in.
            image = image.crop(draw_box(image.width, image.height, rng=rng))
            preprocessing = replace(preprocessing, resize="squash")
        return preprocess_image(image, preprocessing)[None, None]  # (1, 1, 3, S, S)


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
