from __future__ import annotations

import numpy as np
import pytest
import torch

from alpro.datasets.transforms.normalize import Normalize, reorder_frames


def test_normalisation_by_hand() -> None:
    frames = torch.zeros(1, 1, 3, 1, 2, dtype=torch.uint8)
    frames[0, 0, :, 0, 1] = torch.tensor([255, 51, 1])
    normalize = Normalize([0.5, 0.2, 0.0], [0.5, 0.1, 0.25])
    expected = [[-1.0, 1.0], [-2.0, 0.0], [0.0, 4 / 255]]
    result = normalize(frames)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result[0, 0, :, 0], torch.tensor(expected), atol=1e-6, rtol=0)
    assert frames.max() == 255
    assert normalize.state_dict() == {}


def test_normalisation_from_0_to_255_in_bgr_by_hand() -> None:
    normalize = Normalize([123.5, 116.0, 103.5], [1.0, 2.0, 0.5], scale=255, channel_order="bgr")
    frames = torch.zeros(1, 1, 3, 1, 2, dtype=torch.uint8)  # the first pixel is padding
    frames[0, 0, :, 0, 1] = torch.tensor([255, 51, 1])
    expected = [[-207.0, -205.0], [-58.0, -32.5], [-123.5, 131.5]]  # B, G, R
    assert normalize(frames)[0, 0, :, 0].tolist() == expected


def test_the_scale_does_not_depend_on_the_batch() -> None:
    """A dark clip is not taken for one on the 0-1 scale."""
    normalize = Normalize([0.0] * 3, [1.0] * 3)
    dark = torch.ones(1, 1, 3, 2, 2, dtype=torch.uint8)
    torch.testing.assert_close(normalize(dark), torch.full((1, 1, 3, 2, 2), 1 / 255))


def test_frames_are_put_into_each_order() -> None:
    frames = np.arange(6)[:, None]
    assert reorder_frames(frames, "original").ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert reorder_frames(frames, "reversed").ravel().tolist() == [5, 4, 3, 2, 1, 0]
    shuffled = reorder_frames(frames, "shuffled", np.random.default_rng(0)).ravel().tolist()
    assert sorted(shuffled) == [0, 1, 2, 3, 4, 5]
    assert shuffled != [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="generator"):
        reorder_frames(frames, "shuffled")
    with pytest.raises(ValueError, match="'backwards'.*reversed"):
        reorder_frames(frames, "backwards")
