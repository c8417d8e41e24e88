"""What PyAV's decoder leaves out changes no frame."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from alpro.datasets.decoding import FrameSelector, Video, VideoReadError, pyav_decoder
from alpro.datasets.decoding.formats import OpenVideo
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from tests.datasets.clips import SMALL, indices_of, write_clip, write_frames


def _pick(*indices: int) -> FrameSelector:
    return lambda _num_video_frames: np.array(indices)


def _moving_square(num_frames: int) -> np.ndarray:
    frames = np.full((num_frames, 64, 80, 3), 40, np.uint8)
    for index in range(num_frames):
        frames[index, 8:32, index * 2 : index * 2 + 16] = (250, 160, 90)
    return frames


@pytest.mark.parametrize("group_size", [1, 5, 250])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "clip.ts"])
def test_skipping_unneeded_packets_changes_no_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, group_size: int
) -> None:
    path = write_frames(tmp_path / name, _moving_square(30), codec=codec, group_size=group_size)
    selections = [_pick(0), _pick(29), _pick(7, 8, 21), _pick(*range(30)), _pick(3, 3, 28)]
    decoder = PyAVDecoder()
    skipping = [decoder.read(path, wanted, preprocessing=SMALL) for wanted in selections]
    monkeypatch.setattr(pyav_decoder, "_MOST_KEPT_BYTES", 0)  # as for a long video
    for wanted, frames in zip(selections, skipping, strict=True):
        np.testing.assert_array_equal(decoder.read(path, wanted, preprocessing=SMALL), frames)
    monkeypatch.setattr(pyav_decoder._PacketIndex, "has_valid_timestamps", lambda _index: False)
    for wanted, frames in zip(selections, skipping, strict=True):
        np.testing.assert_array_equal(decoder.read(path, wanted, preprocessing=SMALL), frames)


def test_only_needed_packets_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of groups of 5 frames, the two that hold a wanted one."""
    path = write_clip(tmp_path / "clip.mp4", num_frames=20, group_size=5)
    decoded: list[Packet] = []
    decode = pyav_decoder.decode_packet

    def counting(codec: VideoCodecContext, packet: Packet | None) -> list[VideoFrame]:
        decoded.extend([packet] if packet is not None else [])
        return decode(codec, packet)

    monkeypatch.setattr(pyav_decoder, "decode_packet", counting)
    frames = PyAVDecoder().read(path, _pick(5, 15), preprocessing=SMALL)
    assert indices_of(frames) == [5, 15]
    assert len(decoded) == 2


def test_a_wrong_count_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets that give no frame (here: an invented one) are not chosen."""
    path = write_clip(tmp_path / "clip.mp4", num_frames=6)
    index_packets = pyav_decoder._index_packets

    def with_one_more(opened: OpenVideo) -> pyav_decoder._PacketIndex:
        index = index_packets(opened)
        index.packets.append(index.packets[-1])
        return index

    monkeypatch.setattr(pyav_decoder, "_index_packets", with_one_more)
    asked: list[int] = []

    def last(num_video_frames: int) -> np.ndarray:
        asked.append(num_video_frames)
        return np.array([num_video_frames - 1])

    frames = PyAVDecoder().read(path, last, preprocessing=SMALL)
    assert asked == [7, 6]
    assert indices_of(frames) == [5]


def test_a_truncated_file_gives_frames(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "clip.ts", _moving_square(30))
    content = path.read_bytes()
    for video in (content[: len(content) // 2], content[: len(content) // 3]):
        frames = PyAVDecoder().read(video, lambda n: np.array([0, n - 1]), preprocessing=SMALL)
        assert frames.shape == (2, 3, 64, 64)


def test_frames_that_do_not_come_out_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=6)
    monkeypatch.setattr(pyav_decoder._PacketIndex, "has_valid_timestamps", lambda _index: False)
    with pytest.raises(VideoReadError, match="1 of the wanted frames do not come out"):
        PyAVDecoder().read(path, _pick(2, 6), preprocessing=SMALL)


def _break(monkeypatch: pytest.MonkeyPatch, *, after: int, error: Exception) -> None:
    """Let every file raise an error after so many packets."""
    open_video = pyav_decoder.open_with_pyav

    @contextmanager
    def breaking(video: Video) -> Iterator[OpenVideo]:
        with open_video(video) as opened:

            def demux(stream: av.VideoStream) -> Iterator[Packet]:
                for number, packet in enumerate(opened.container.demux(stream)):
                    if number == after:
                        raise error
                    yield packet

            container: Any = SimpleNamespace(demux=demux)
            yield opened._replace(container=container)

    monkeypatch.setattr(pyav_decoder, "open_with_pyav", breaking)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_a_disk_that_fails_is_no_end_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=16)
    with pytest.raises(av.error.FFmpegError) as caught:
        av.error.err_check(-number)
    _break(monkeypatch, after=9, error=caught.value)
    with pytest.raises(VideoReadError) as raised:
        PyAVDecoder().read(path, lambda n: np.array([0, n - 1]), preprocessing=SMALL)
    assert raised.value.__cause__ is caught.value


def test_damage_is_the_end_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=16, group_size=1)
    _break(monkeypatch, after=9, error=av.error.InvalidDataError(0, "damage"))
    frames = PyAVDecoder().read(path, lambda n: np.array([0, n - 1]), preprocessing=SMALL)
    assert indices_of(frames) == [0, 8]


def test_a_lack_of_memory_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And taken for no broken packet."""
    path = write_clip(tmp_path / "clip.mp4", num_frames=16)

    def decode(_packet: Packet) -> list[VideoFrame]:
        raise av.error.MemoryError(errno.ENOMEM, "no memory")

    def decode_needed(*_: object) -> None:
        pyav_decoder.decode_packet(SimpleNamespace(decode=decode), None)  # type: ignore[arg-type]

    monkeypatch.setattr(pyav_decoder, "_decode_needed", decode_needed)
    with pytest.raises(VideoReadError, match=r"^PyAV: no memory$") as raised:
        PyAVDecoder().read(path, _pick(1), preprocessing=SMALL)
    assert isinstance(raised.value.__cause__, MemoryError)
