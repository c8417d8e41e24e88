"""Pixel preprocessing against the numbers of the other originals, where they are present."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alpro.datasets.transforms.normalize import Normalize
from alpro.datasets.transforms.preprocessing import (
    PixelPreprocessing,
    crop_or_pad,
    preprocess_frames,
    resize_frames,
    resized_size,
)
from tests.parity.test_optimization import golden, needs_goldens


@needs_goldens
@pytest.mark.parametrize("size", [24, 48])
@pytest.mark.parametrize("antialias", [False, True])
def test_squashed_frames_of_clip_vip_as_8_bits(size: int, antialias: bool) -> None:
    """Frames travel as 8 bits: half a grey level where the filter does not overshoot."""
    _, arrays = golden("clipvip_eval_a")
    preprocessing = PixelPreprocessing(size=size, interpolation="bicubic", antialias=antialias)
    seen = torch.from_numpy(preprocess_frames(arrays["transform_input"], preprocessing))
    within = ((seen > 0) & (seen < 255)).numpy()
    expected = arrays[f"transform_{size}" + "_antialias" * antialias]
    half = 0.5 / 255 / min(preprocessing.std)
    normalized = Normalize(preprocessing.mean, preprocessing.std)(seen).numpy()
    np.testing.assert_allclose(normalized[within], expected[within], atol=half + 1e-5)


@needs_goldens
def test_padding_agrees_with_clipbert() -> None:
    record, arrays = golden("clipbert_misc_a")
    for case in record["geometry"]:
        preprocessing = PixelPreprocessing(size=case["max_img_size"], resize="pad")
        resized_to = resized_size(case["height"], case["width"], preprocessing)
        assert list(resized_to) == case["resized"]
    for index, size in enumerate((6, 8, 16)):
        frames = arrays[f"resize{index}_input"]
        preprocessing = PixelPreprocessing(size=size, resize="pad", antialias=False)
        height, width = resized_size(frames.shape[-2], frames.shape[-1], preprocessing)
        resized = resize_frames(
            frames, height=height, width=width, interpolation="bilinear", antialias=False
        )
        expected = arrays[f"resize{index}_output"]
        np.testing.assert_allclose(crop_or_pad(resized, size), expected, atol=1e-3)
        seen = preprocess_frames(frames, preprocessing)
        np.testing.assert_allclose(seen, expected, atol=0.501)
