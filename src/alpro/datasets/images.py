"""Still images as clips of one frame.

S: side of the square frames in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alpro.datasets.decoding.image_files import preprocess_image, read_image
from alpro.datasets.storage.directory_index import folder_trouble, is_open_folder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.errors import InputError
from alpro.installation import has_package

# A random crop as the original's: torchvision's RandomResizedCrop with these numbers.
CROP_AREA = (0.2, 1.0)  # least and greatest share of the image
CROP_RATIO = (3 / 4, 4 / 3)  # least and greatest width over height
_CROP_ATTEMPTS = 10

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels."""


@dataclass(frozen=True)
class ImageReader:
    """Reads the images of a set.

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
        """Read the image at a path as one clip (1, 1, 3, S, S) of one uint8 frame, upright.

        Raises:
            VideoReadError: the file is missing or unreadable.
        """
        image = read_image(Path(image_id) if self.root is None else self.root / image_id)
        preprocessing = self.preprocessing
        if self.random_crop:
            if rng is None:
                raise ValueError("random crops need a generator")
            # Crop before resizing, so that no pixel around the box is mixed in.
            image = image.crop(draw_box(image.width, image.height, rng=rng))
            preprocessing = replace(preprocessing, resize="squash")
        return preprocess_image(image, preprocessing)[None, None]  # (1, 1, 3, S, S)


def draw_box(width: int, height: int, *, rng: np.random.Generator) -> Box:
    """Draw the box of a random crop.

    Its share of the area and the logarithm of its ratio are uniform; if several draws do not fit
    into the image, it is the largest box in the middle whose ratio is allowed.
    """
    narrowest, widest = CROP_RATIO
    # Draw size, then place, until a box fits.
    for _ in range(_CROP_ATTEMPTS):
        area = width * height * rng.uniform(*CROP_AREA)
        ratio = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
        part_width = round(math.sqrt(area * ratio))
        part_height = round(math.sqrt(area / ratio))
        if 0 < part_width <= width and 0 < part_height <= height:
            top = int(rng.integers(height - part_height + 1))
            left = int(rng.integers(width - part_width + 1))
            return left, top, left + part_width, top + part_height
    # Fall back to the middle.
    part_width = max(min(width, round(height * widest)), 1)
    part_height = max(min(height, round(width / narrowest)), 1)
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return left, top, left + part_width, top + part_height
