"""The decoder of the documentation's example keeps the contract."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.decoding import SandboxedDecoder, VideoReadError
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from tests.datasets.array_decoder import ArrayDecoder

SIZE = PixelPreprocessing(size=8)


def select(_num_video_frames: int) -> np.ndarray:
    return np.array([4, 0, 0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    np.save(tmp_path / "clip.npy", frames)
    return tmp_path / "clip.npy"


@pytest.mark.parametrize("as_bytes", [False, True])
def test_it_reads_the_selected_frames_in_an_isolated_process(path: Path, as_bytes: bool) -> None:
    decoder = SandboxedDecoder(ArrayDecoder(), seconds=60, megabytes=0)
    video = path.read_bytes() if as_bytes else path
    frames = decoder.read(video, select, preprocessing=SIZE)
    decoder.close()
    assert frames.shape == (3, 3, 8, 8)
    assert frames[:, 0, 0, 0].tolist() == [4, 0, 0]


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_it_names_what_is_wrong_with_a_file(content: bytes) -> None:
    with pytest.raises(VideoReadError, match="numpy: "):
        ArrayDecoder().read(content, select, preprocessing=SIZE)
