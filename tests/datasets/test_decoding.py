from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets import decoding as choice
from alpro.datasets.decoding import (
    Decoder,
    FrameSelector,
    SandboxedDecoder,
    VideoReadError,
    make_decoder,
)
from alpro.datasets.decoding.image_files import MediaDecoder
from alpro.datasets.decoding.other_decoders import DecordDecoder
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder, check_for_others
from alpro.datasets.transforms.preprocessing import PixelPreprocessing, preprocess_frames
from alpro.errors import InputError
from alpro.installation import DECODERS
from tests.datasets.clips import SMALL, indices_of, write_clip, write_frames
from tests.datasets.decoders import installed_decoder


@pytest.fixture(params=("auto", *DECODERS))
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return installed_decoder(request.param)


def _pick(*indices: int) -> FrameSelector:
    return lambda _num_video_frames: np.array(indices)


def _moving_square(num_frames: int, *, height: int = 64, width: int = 80) -> np.ndarray:
    frames = np.full((num_frames, height, width, 3), 40, np.uint8)
    for index in range(num_frames):
        frames[index, 8 : height // 2, index * 2 : index * 2 + 16] = (250, 160, 90)
    return frames


def test_wanted_frames_in_their_order_squashed_to_size(tmp_path: Path, decoder: Decoder) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=16, height=48, width=64)
    asked: list[int] = []

    def select(num_video_frames: int) -> np.ndarray:
        asked.append(num_video_frames)
        return np.array([0, 5, 5, 6, 15])

    frames = decoder.read(path, select, preprocessing=PixelPreprocessing(size=32))
    assert set(asked) == {16}
    assert frames.shape == (5, 3, 32, 32)
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    assert indices_of(frames) == [0, 5, 5, 6, 15]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("resize", ["squash", "center_crop", "pad", "center_square"])
@pytest.mark.parametrize(("height", "width"), [(50, 80), (80, 50)])
def test_decoders_follow_the_resize_policy(
    tmp_path: Path,
    decoder: Decoder,
    height: int,
    width: int,
    resize: Any,
    interpolation: Any,
    antialias: bool,
) -> None:
    path = write_frames(tmp_path / "clip.mp4", _moving_square(8, height=height, width=width))
    stored = decoder.read(
        path, _pick(0, 7), preprocessing=PixelPreprocessing(size=80, resize="pad")
    )
    assert (stored[..., height:, :] == 0).all()
    assert (stored[..., width:] == 0).all()
    preprocessing = PixelPreprocessing(
        size=36, resize=resize, interpolation=interpolation, antialias=antialias
    )
    frames = decoder.read(path, _pick(0, 7), preprocessing=preprocessing)
    expected = preprocess_frames(stored[..., :height, :width], preprocessing)
    if preprocessing.resized_by_decoder:
        assert np.abs(frames.astype(int) - expected).mean() < 1.5
    else:
        np.testing.assert_array_equal(frames, expected)


def test_bytes_give_the_same_frames_as_the_file(tmp_path: Path, decoder: Decoder) -> None:
    path = write_frames(tmp_path / "clip.mp4", _moving_square(20))
    wanted = _pick(0, 3, 11, 19)
    from_file = decoder.read(path, wanted, preprocessing=SMALL)
    from_bytes = decoder.read(path.read_bytes(), wanted, preprocessing=SMALL)
    np.testing.assert_array_equal(from_bytes, from_file)


def test_channels_are_red_green_blue(tmp_path: Path, decoder: Decoder) -> None:
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    frames[..., :] = (200, 120, 30)
    path = write_frames(tmp_path / "clip.mp4", frames)
    read = decoder.read(path, _pick(0), preprocessing=SMALL)
    assert np.abs(read.mean(axis=(0, 2, 3)) - [200, 120, 30]).max() < 4


def test_a_file_that_declares_too_many_frames_is_kept_from_decord(tmp_path: Path) -> None:
    """Decord 0.6 ends the process over such a file, which is otherwise readable."""
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "clip.mp4")
    check_for_others(path)
    content = bytearray(path.read_bytes())
    # An mp4's time table: name, version and flags, number of entries, then the first one's count.
    count_at = content.index(b"stts") + 12
    content[count_at : count_at + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match="declares 2147483647 frames"):
        make_decoder("decord").read(path, _pick(3), preprocessing=SMALL)
    frames = make_decoder("auto").read(path, _pick(3), preprocessing=SMALL)
    assert indices_of(frames) == [3]


@pytest.mark.parametrize(
    ("name", "content"), [("empty.mp4", b""), ("text.mp4", b"not a video " * 500)]
)
def test_a_file_that_is_no_video_is_an_error(
    tmp_path: Path, decoder: Decoder, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for video in (path, content):
        with pytest.raises(VideoReadError):
            decoder.read(video, _pick(0), preprocessing=SMALL)
    with pytest.raises(VideoReadError):
        decoder.read(tmp_path / "absent.mp4", _pick(0), preprocessing=SMALL)


def test_mistakes_of_the_selector_are_not_taken_for_bad_files(
    tmp_path: Path, decoder: Decoder
) -> None:
    path = write_clip(tmp_path / "clip.mp4")

    def select(_num_video_frames: int) -> np.ndarray:
        raise ValueError("no such strategy")

    with pytest.raises(ValueError, match="no such strategy"):
        decoder.read(path, select, preprocessing=SMALL)


def _of_videos(decoder: Decoder) -> Decoder:
    assert isinstance(decoder, MediaDecoder)
    return decoder.videos


def test_auto_does_without_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"decord", "av"}
    monkeypatch.setattr(choice, "has_package", lambda name: name in installed)
    assert isinstance(_of_videos(make_decoder("auto")), PyAVDecoder)
    installed.remove("decord")
    assert isinstance(_of_videos(make_decoder("auto")), PyAVDecoder)
    with pytest.raises(InputError, match="pip install decord"):
        make_decoder("decord")
    installed.clear()
    with pytest.raises(InputError, match="av or decord"):
        make_decoder("auto")
    installed.add("decord")
    assert isinstance(_of_videos(make_decoder("auto")), DecordDecoder)
    with pytest.raises(InputError, match="'ffmpeg'.*auto, pyav, decord, torchcodec"):
        make_decoder("ffmpeg")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise ImportError('no')", "cannot be imported \\(ImportError: no"),
        ("raise RuntimeError('no')", "cannot be imported \\(RuntimeError: no"),
    ],
)
def test_torchcodec_that_cannot_be_used_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "torchcodec.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"{reason}.*pip install torchcodec.*ffmpeg"):
        make_decoder("torchcodec")


@pytest.mark.parametrize("limits", [{"seconds": 60}, {"megabytes": 500}])
def test_either_limit_makes_a_sandboxed_decoder(tmp_path: Path, limits: dict[str, int]) -> None:
    guarded = make_decoder("pyav", **limits)
    assert isinstance(guarded, SandboxedDecoder)
    assert isinstance(_of_videos(guarded.decoder), PyAVDecoder)
    path = write_clip(tmp_path / "clip.mp4")
    frames = guarded.read(path, np.arange, preprocessing=SMALL)  # all: can be sent
    guarded.close()
    assert indices_of(frames) == list(range(16))


def test_decoders_can_be_sent_to_workers(decoder: Decoder) -> None:
    assert type(pickle.loads(pickle.dumps(decoder))) is type(decoder)
