from __future__ import annotations

import pickle
import random
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.decoding import VideoReadError
from alpro.datasets.images import ImageReader, draw_box
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames
from alpro.errors import InputError

Image = pytest.importorskip("PIL.Image")

_RED, _GREEN, _BLUE = (250, 10, 20), (10, 240, 30), (20, 30, 230)


def _bands(*, width: int = 60, height: int = 20) -> np.ndarray:
    """(H, W, 3): a red, a green and a blue third, from left to right."""
    pixels = np.empty((height, width, 3), np.uint8)
    for third, colour in enumerate((_RED, _GREEN, _BLUE)):
        pixels[:, third * width // 3 : (third + 1) * width // 3] = colour
    return pixels


def _squares(size: int) -> PixelPreprocessing:
    return PixelPreprocessing(size=size, resize="center_square", interpolation="bicubic")


def _read(path: Path, *, size: int = 8) -> np.ndarray:
    """The (3, S, S) pixels of an image read without chance."""
    frames = ImageReader(path.parent, _squares(size), random_crop=False).read(path.name, rng=None)
    assert frames.shape == (1, 1, 3, size, size)
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    return frames[0, 0]


def test_the_largest_square_in_the_middle(tmp_path: Path) -> None:
    Image.fromarray(_bands()).save(tmp_path / "a.png")
    assert (_read(tmp_path / "a.png") == np.array(_GREEN)[:, None, None]).all()
    Image.fromarray(_bands().transpose(1, 0, 2)).save(tmp_path / "b.png")
    assert (_read(tmp_path / "b.png") == np.array(_GREEN)[:, None, None]).all()


def test_a_square_of_the_right_size_comes_as_it_is(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(_read(tmp_path / "a.png"), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        *[("RGB", "a.png"), ("RGB", "a.jpg"), ("P", "a.png"), ("P", "a.gif"), ("RGBA", "a.png")],
        *[("CMYK", "a.jpg"), ("CMYK", "a.tif"), ("RGB", "a.webp"), ("RGB", "a.bmp")],
    ],
)
def test_colours_of_all_kinds_of_files(tmp_path: Path, mode: str, name: str) -> None:
    image = Image.fromarray(np.full((20, 30, 3), (200, 60, 90), np.uint8)).convert(mode)
    image.save(tmp_path / name)
    assert np.abs(_read(tmp_path / name).mean((1, 2)) - (200, 60, 90)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16", "I", "F"])
def test_grey_images_become_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.full((10, 10), 255, np.uint8)
    if mode in ("I;16", "I"):
        image = Image.fromarray(grey.astype(np.uint16) * 257)
        image = image if mode == "I;16" else image.convert("I")
    else:
        image = Image.fromarray(grey).convert(mode)
    name = "a.tif" if mode in ("I", "F") else "a.png"
    image.save(tmp_path / name)
    assert (_read(tmp_path / name) == 255).all()


def test_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert (_read(tmp_path / "a.png") == 128).all()


def test_images_stand_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show a quarter turn clockwise
    stored = np.rot90(_bands(width=24, height=24))  # counter-clockwise
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    shown = _read(tmp_path / "a.png", size=24)
    assert np.array_equal(shown, _bands(width=24, height=24).transpose(2, 0, 1))


def test_paths_begin_in_the_folder_or_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cc3m").mkdir()
    Image.fromarray(_bands()).save(tmp_path / "cc3m/a.png")
    with_root = ImageReader(tmp_path, _squares(8), random_crop=False)
    assert with_root.read("cc3m/a.png", rng=None).shape == (1, 1, 3, 8, 8)
    without = ImageReader(None, _squares(8), random_crop=False)
    assert without.read(str(tmp_path / "cc3m/a.png"), rng=None).shape == (1, 1, 3, 8, 8)
    with pytest.raises(VideoReadError, match=r"no file cc3m.a\.png"):
        without.read("cc3m/a.png", rng=None)
    monkeypatch.chdir(tmp_path)
    assert without.read("cc3m/a.png", rng=None).shape == (1, 1, 3, 8, 8)
    with pytest.raises(InputError, match="images: folder .*absent not found; the dataset's `img`"):
        ImageReader(tmp_path / "absent", _squares(8), random_crop=False)


def test_random_crops_are_functions_of_the_generator(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    reader = pickle.loads(pickle.dumps(ImageReader(tmp_path, _squares(16), random_crop=True)))
    crops = [reader.read("a.png", rng=np.random.default_rng(seed)) for seed in (0, 1, 2, 0)]
    assert np.array_equal(crops[0], crops[3])
    assert not np.array_equal(crops[0], crops[1])
    with pytest.raises(ValueError, match="need a generator"):
        reader.read("a.png", rng=None)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60)])
def test_images_follow_the_resize_policy(
    tmp_path: Path, width: int, height: int, antialias: bool
) -> None:
    pixels = np.random.default_rng(0).integers(90, 170, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for resize in ("squash", "center_crop", "pad", "center_square"):
        preprocessing = replace(_squares(16), resize=resize, antialias=antialias)
        frames = ImageReader(tmp_path, preprocessing, random_crop=False).read("a.png", rng=None)
        expected = preprocess_frames(pixels.transpose(2, 0, 1)[None], preprocessing)
        # Pillow, which antialiases, rounds between the two directions.
        assert np.abs(frames.astype(int) - expected).max() <= antialias * 2


def test_random_crops_are_squashed_whatever_the_policy(tmp_path: Path) -> None:
    Image.fromarray(_bands()).save(tmp_path / "a.png")
    squash, pad = (
        ImageReader(tmp_path, replace(_squares(16), resize=resize), random_crop=True).read(
            "a.png", rng=np.random.default_rng(0)
        )
        for resize in ("squash", "pad")
    )
    assert np.array_equal(squash, pad)


def test_pixels_around_a_crop_are_not_mixed_in(tmp_path: Path) -> None:
    pixels = np.zeros((50, 50, 3), np.uint8)
    rng = np.random.default_rng(5)
    left, top, right, bottom = draw_box(50, 50, rng=np.random.default_rng(5))
    pixels[top:bottom, left:right] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    frames = ImageReader(tmp_path, _squares(8), random_crop=True).read("a.png", rng=rng)
    assert (frames == 255).all()


def test_crops_keep_to_area_and_ratio() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([draw_box(400, 300, rng=rng) for _ in range(2000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 400).all()
    assert (boxes[:, 3] <= 300).all()
    shares, ratios = widths * heights / (400 * 300), widths / heights
    assert shares.min() == pytest.approx(0.2, abs=0.01)
    assert shares.max() == pytest.approx(1.0, abs=0.02)
    assert ratios.min() == pytest.approx(3 / 4, abs=0.01)
    assert ratios.max() == pytest.approx(4 / 3, abs=0.01)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1000, 10, (493, 0, 506, 10)), (10, 1000, (0, 493, 10, 506)), (1, 1, (0, 0, 1, 1))],
)
def test_images_that_no_crop_fits(
    width: int, height: int, expected: tuple[int, int, int, int]
) -> None:
    assert draw_box(width, height, rng=np.random.default_rng(0)) == expected


def test_damaged_files_are_unreadable(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(24, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = random.Random(1)
    num_refused = 0
    for name in ("a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"):
        path = tmp_path / name
        Image.fromarray(pixels).save(path, **({} if "gif" in name else {"exif": exif}))
        whole = path.read_bytes()
        for trial in range(60):
            damaged = bytearray(whole)
            for _ in range(2):
                damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
            path.write_bytes(damaged[: rng.randrange(len(damaged))] if trial % 3 == 0 else damaged)
            try:
                assert _read(path).shape == (3, 8, 8)
            except VideoReadError as error:
                assert str(error).startswith("Pillow: ")  # noqa: PT017  # it need not be raised
                num_refused += 1
    assert num_refused > 60


def test_formats_that_hold_programs_are_not_read(tmp_path: Path) -> None:
    """Pillow would call Ghostscript for it."""
    Image.fromarray(_bands()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(VideoReadError, match="Pillow: cannot identify a text as an image"):
        _read(tmp_path / "a.jpg")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    for name, content in [("a.jpg", b""), ("b.jpg", b"<html>"), ("c.svg", b"<svg/>")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoReadError, match="Pillow: cannot identify"):
            _read(tmp_path / name)
    (tmp_path / "d.jpg").mkdir()
    with pytest.raises(VideoReadError, match=r"no file .*d\.jpg"):
        _read(tmp_path / "d.jpg")


@pytest.mark.parametrize("limit", [300, 100])  # where Pillow warns, and where it refuses
def test_decompression_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(VideoReadError, match="Pillow: more pixels than it reads.*400 pixels"):
            _read(tmp_path / "a.png")
