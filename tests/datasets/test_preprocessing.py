from __future__ import annotations

import json
import pickle
from dataclasses import asdict
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional

from alpro.datasets.transforms.preprocessing import (
    Interpolation,
    PixelPreprocessing,
    preprocess_frames,
    resize_frames,
    resized_size,
)


def picture(rows: list[list[int]]) -> np.ndarray:
    """One (1, 3, H, W) frame with these values in each channel."""
    return np.repeat(np.array(rows, np.uint8)[None, None], 3, axis=1)


def preprocessed(rows: list[list[int]], **policy: Any) -> list[list[int]]:
    """The first channel of the picture, which must be that of the others; sideways alike."""
    frames = preprocess_frames(picture(rows), PixelPreprocessing(**policy))
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    assert (frames == frames[:, :1]).all()
    sideways = picture(np.transpose(rows).tolist())
    turned = preprocess_frames(sideways, PixelPreprocessing(**policy))
    np.testing.assert_array_equal(turned, frames.swapaxes(-1, -2))
    return cast(list[list[int]], frames[0, 0].tolist())


@pytest.mark.parametrize(
    ("interpolation", "antialias", "row", "expected"),
    [
        ("bilinear", False, [0, 100, 200, 40], [50, 120]),
        # Weights 3/4, 3/4, 1/4: what is left within the picture of a filter twice as wide.
        ("bilinear", True, [0, 100, 200, 40], [71, 117]),  # 125/1.75, 205/1.75
        # Weights -3/32, 19/32, 19/32, -3/32; the pixel at the edge is repeated.
        ("bicubic", False, [0, 100, 200, 40], [41, 129]),  # 40.625, 129.375
        ("bicubic", False, [0, 0, 255, 255], [0, 255]),  # -23.9, 278.9
    ],
)
def test_squash_by_hand(
    interpolation: str, antialias: bool, row: list[int], expected: list[int]
) -> None:
    policy = {"size": 2, "interpolation": interpolation, "antialias": antialias}
    assert preprocessed([row, row], **policy) == [expected, expected]


@pytest.mark.parametrize("antialias", [False, True])
def test_squash_upwards_by_hand(antialias: bool) -> None:
    expected = [[0, 25, 75, 100]] * 4
    assert preprocessed([[0, 100]], size=4, antialias=antialias) == expected


def test_halves_are_rounded_to_the_even_number() -> None:
    assert preprocessed([[0, 1]], size=1, antialias=False) == [[0]]
    assert preprocessed([[1, 2]], size=1, antialias=False) == [[2]]


def test_center_crop_by_hand() -> None:
    policy = {"size": 2, "resize": "center_crop", "antialias": False}
    assert preprocessed([[1, 2, 3, 4], [5, 6, 7, 8]], **policy) == [[2, 3], [6, 7]]
    # Half a pixel goes to the even number: 0.5 to 0, 1.5 to 2.
    assert preprocessed([[1, 2, 3], [4, 5, 6]], **policy) == [[1, 2], [4, 5]]
    assert preprocessed([[1, 2, 3, 4, 5]] * 2, **policy) == [[3, 4]] * 2
    # Pairs are averaged to 10, 20, 30, 40, of which the middle remains.
    assert preprocessed([[0, 20, 10, 30, 20, 40, 30, 50]] * 4, **policy) == [[20, 30]] * 2
    # Upwards: 1 x 2 becomes 2 x 4, of columns 0, 25, 75, 100.
    assert preprocessed([[0, 100]], **policy) == [[25, 75]] * 2


def test_padding_by_hand() -> None:
    policy = {"resize": "pad", "antialias": False}
    same = [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert preprocessed(same, size=4, **policy) == [*same, [0] * 4, [0] * 4]
    assert preprocessed(same, size=2, **policy) == [[4, 6], [0, 0]]  # 3.5, 5.5
    assert preprocessed([[0, 100]], size=4, **policy) == [[0, 25, 75, 100]] * 2 + [[0] * 4] * 2


def test_the_square_in_the_middle_by_hand() -> None:
    policy = {"resize": "center_square", "antialias": False}
    rows = [[10, 20, 30, 40, 50], [60, 70, 80, 90, 100]]
    assert preprocessed(rows, size=2, **policy) == [[20, 30], [70, 80]]
    assert preprocessed(rows, size=1, **policy) == [[50]]


@pytest.mark.parametrize("resize", ["squash", "center_crop", "pad", "center_square"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_frames_of_the_right_size_stay_as_they_are(
    resize: Any, interpolation: Any, antialias: bool
) -> None:
    frames = np.random.default_rng(0).integers(256, size=(2, 3, 7, 7), dtype=np.uint8)
    preprocessing = PixelPreprocessing(
        size=7, resize=resize, interpolation=interpolation, antialias=antialias
    )
    np.testing.assert_array_equal(preprocess_frames(frames, preprocessing), frames)


@pytest.mark.parametrize(
    ("resize", "height", "width", "expected"),
    [
        *[("squash", 240, 320, (224, 224)), ("center_square", 320, 240, (224, 224))],
        *[("center_crop", 240, 320, (224, 298)), ("center_crop", 320, 240, (298, 224))],
        *[("center_crop", 100, 101, (224, 226)), ("center_crop", 224, 500, (224, 500))],
        *[("pad", 240, 320, (168, 224)), ("pad", 320, 240, (224, 168))],
        *[("pad", 3, 5, (134, 224)), ("pad", 100, 100, (224, 224)), ("pad", 1, 999, (1, 224))],
    ],
)
def test_sizes_after_resizing(
    resize: Any, height: int, width: int, expected: tuple[int, int]
) -> None:
    preprocessing = PixelPreprocessing(size=224, resize=resize)
    assert resized_size(height, width, preprocessing) == expected


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("target", [(8, 8), (5, 24), (31, 40), (61, 83)])
def test_resizing_agrees_with_pytorch(
    interpolation: Interpolation, antialias: bool, target: tuple[int, int]
) -> None:
    frames = np.random.default_rng(0).integers(256, size=(2, 3, 31, 40), dtype=np.uint8)
    ours = resize_frames(
        frames,
        height=target[0],
        width=target[1],
        interpolation=interpolation,
        antialias=antialias,
    )
    theirs = functional.interpolate(
        torch.from_numpy(frames).float(), size=target, mode=interpolation, antialias=antialias
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-3)  # of 255: float32 coordinates
    assert ours.dtype == np.float32


def test_the_protocol_names_what_differs_from_alpro() -> None:
    assert PixelPreprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)).protocol() == {}
    clipbert = PixelPreprocessing(
        size=448,
        resize="pad",
        antialias=False,
        mean=(123.675, 116.28, 103.53),
        std=(1.0, 1.0, 1.0),
        scale=255,
        channel_order="bgr",
    )
    assert clipbert.protocol() == {
        **{"resize": "pad", "antialias": False},
        **{"scale": 255, "channel_order": "bgr"},
    }


def test_preprocessing_can_be_sent_and_written() -> None:
    preprocessing = PixelPreprocessing(size=448, resize="pad", scale=255)
    assert pickle.loads(pickle.dumps(preprocessing)) == preprocessing
    assert PixelPreprocessing(**json.loads(json.dumps(asdict(preprocessing)))).size == 448
