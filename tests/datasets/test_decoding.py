from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from src.datasets.decoding import (
    Decoder,
    DecordDecoder,
    FallbackDecoder,
    FrameSelector,
    PyAVDecoder,
    VideoReadError,
    choice,
    make_decoder,
    pyav_decoder,
)
from src.datasets.decoding.pyav_decoder import check_declared_length
from src.errors import InputError
from tests.datasets.clips import indices_of, write_clip, write_frames

_DECODER_GAP = 1.0
"""Grey levels allowed on average between decord and PyAV: 0.0 to 0.7 on 26 real clips."""


@pytest.fixture(params=["decord", "pyav", "auto"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    if request.param == "decord":
        pytest.importorskip("decord")
    return make_decoder(request.param)


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

    frames = decoder.read(path, select, height=32, width=96)
    assert set(asked) == {16}
    assert frames.shape == (5, 3, 32, 96)
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    assert indices_of(frames) == [0, 5, 5, 6, 15]


def test_channels_are_red_green_blue(tmp_path: Path, decoder: Decoder) -> None:
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    frames[..., :] = (200, 120, 30)
    path = write_frames(tmp_path / "clip.mp4", frames)
    read = decoder.read(path, _pick(0), height=64, width=64)
    assert np.abs(read.mean(axis=(0, 2, 3)) - [200, 120, 30]).max() < 4


def test_both_libraries_agree(tmp_path: Path) -> None:
    pytest.importorskip("decord")
    path = write_frames(tmp_path / "clip.mp4", _moving_square(20))
    wanted = _pick(0, 3, 11, 19)
    by_decord = DecordDecoder().read(path, wanted, height=48, width=64).astype(int)
    by_pyav = PyAVDecoder().read(path, wanted, height=48, width=64)
    assert np.abs(by_decord - by_pyav).mean() < _DECODER_GAP


@pytest.mark.parametrize("group_size", [1, 5, 250])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts"])
def test_skipping_what_is_not_wanted_changes_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, group_size: int
) -> None:
    path = write_frames(tmp_path / name, _moving_square(30), codec=codec, group_size=group_size)
    selections = [_pick(0), _pick(29), _pick(7, 8, 21), _pick(*range(30)), _pick(3, 3, 28)]
    decoder = PyAVDecoder()
    skipping = [decoder.read(path, wanted, height=64, width=80) for wanted in selections]
    monkeypatch.setattr(pyav_decoder._PacketIndex, "has_sound_times", lambda _index: False)
    for wanted, frames in zip(selections, skipping, strict=True):
        np.testing.assert_array_equal(decoder.read(path, wanted, height=64, width=80), frames)


def test_a_wrong_count_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets that give no frame (here: invented ones) are not chosen."""
    path = write_clip(tmp_path / "clip.mp4", num_frames=6)
    index = pyav_decoder._index_packets(path)
    index.packets.append(index.packets[-1])
    monkeypatch.setattr(pyav_decoder, "_index_packets", lambda _path: index)
    asked: list[int] = []

    def last(num_video_frames: int) -> np.ndarray:
        asked.append(num_video_frames)
        return np.array([num_video_frames - 1])

    frames = PyAVDecoder().read(path, last, height=64, width=64)
    assert asked == [7, 6]
    assert indices_of(frames) == [5]


def test_a_file_that_declares_too_many_frames_is_kept_from_decord(tmp_path: Path) -> None:
    """Decord 0.6 ends the process over such a file, which is otherwise readable."""
    pytest.importorskip("decord")
    path = write_clip(tmp_path / "clip.mp4")
    check_declared_length(path)
    content = bytearray(path.read_bytes())
    # An mp4's time table: name, version and flags, number of entries, then the first one's count.
    count_at = content.index(b"stts") + 12
    content[count_at : count_at + 4] = (2**31 - 1).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match="declares 2147483647 frames"):
        make_decoder("decord").read(path, _pick(3), height=64, width=64)
    frames = make_decoder("auto").read(path, _pick(3), height=64, width=64)
    assert indices_of(frames) == [3]


@pytest.mark.parametrize(
    ("name", "content"), [("empty.mp4", b""), ("text.mp4", b"not a video " * 500)]
)
def test_what_is_no_video_is_an_error(
    tmp_path: Path, decoder: Decoder, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VideoReadError):
        decoder.read(path, _pick(0), height=16, width=16)
    with pytest.raises(VideoReadError):
        decoder.read(tmp_path / "absent.mp4", _pick(0), height=16, width=16)


def test_a_truncated_or_silent_file_is_an_error_or_gives_frames(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "clip.ts", _moving_square(30))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    frames = make_decoder("pyav").read(path, lambda n: np.array([0, n - 1]), height=64, width=80)
    assert frames.shape == (2, 3, 64, 80)


def test_mistakes_of_the_selector_are_not_taken_for_bad_files(
    tmp_path: Path, decoder: Decoder
) -> None:
    path = write_clip(tmp_path / "clip.mp4")

    def select(_num_video_frames: int) -> np.ndarray:
        raise ValueError("no such strategy")

    with pytest.raises(ValueError, match="no such strategy"):
        decoder.read(path, select, height=16, width=16)


class _Failing:
    def read(self, path: Path, select: FrameSelector, *, height: int, width: int) -> np.ndarray:  # noqa: ARG002
        raise VideoReadError("cannot")


def test_the_second_decoder_takes_over(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    frames = FallbackDecoder(_Failing(), PyAVDecoder()).read(path, _pick(2), height=8, width=8)
    assert indices_of(frames) == [2]
    with pytest.raises(VideoReadError, match="cannot"):
        FallbackDecoder(_Failing(), _Failing()).read(path, _pick(2), height=8, width=8)


def test_auto_does_without_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"decord", "av"}
    monkeypatch.setattr(choice, "find_spec", lambda name: name if name in installed else None)
    assert isinstance(make_decoder("auto"), FallbackDecoder)
    installed.remove("decord")
    assert isinstance(make_decoder("auto"), PyAVDecoder)
    with pytest.raises(InputError, match="pip install decord"):
        make_decoder("decord")
    installed.clear()
    with pytest.raises(InputError, match="decord or av"):
        make_decoder("auto")
    with pytest.raises(InputError, match="'ffmpeg'.*auto, decord, pyav"):
        make_decoder("ffmpeg")


def test_decoders_can_be_sent_to_workers(decoder: Decoder) -> None:
    assert type(pickle.loads(pickle.dumps(decoder))) is type(decoder)
