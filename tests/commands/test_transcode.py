"""One video in, one prepared file out."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from alpro.commands.transcode.encoding import prepare_video
from alpro.commands.transcode.settings import Preparation
from alpro.datasets.decoding import VideoReadError
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.errors import RunError
from tests.datasets.clips import SMALL, indices_of, write_clip
from tests.training.disks import largest_file

NUM_FRAMES = 20


def prepare(source: Path | bytes, folder: Path, **settings: object) -> Path:
    target = folder / "prepared.mp4"
    prepare_video(source, target, preparation=Preparation(**settings))  # type: ignore[arg-type]
    return target


def read_all(path: Path) -> np.ndarray:
    """Every frame, (T, 3, S, S), as training would read it."""
    return PyAVDecoder().read(path, np.arange, preprocessing=SMALL)


def times_of(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def write_video(
    path: Path,
    *,
    codec: str = "ffv1",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (64, 48),
    times: Iterable[int] = range(8),
    rotation: int = 0,
) -> Path:
    """Write frames that get lighter, with a bright left upper corner; times in 1/100 s."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = Fraction(1, 100)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, time in enumerate(times):
            picture = np.full((height, width, 3), 16 * number % 256, np.uint8)
            picture[: height // 3, : width // 3] = (240, 60, 20)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("interval", "b_frames"), [(16, 7), (32, 7), (250, 3), (1, 7), (5, 0)])
def test_frames_keep_their_order_and_number(tmp_path: Path, interval: int, b_frames: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=NUM_FRAMES)
    prepared = prepare(clip, tmp_path, key_frame_interval=interval, b_frames=b_frames)
    assert indices_of(read_all(prepared)) == list(range(NUM_FRAMES))


def test_videos_as_bytes_are_prepared_like_files(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=NUM_FRAMES)
    assert indices_of(read_all(prepare(clip.read_bytes(), tmp_path))) == list(range(NUM_FRAMES))


@pytest.mark.parametrize("share", ["1", "0.5", "0.1", "0.3", "2/3", "0.001"])
def test_a_share_of_the_frames_is_evenly_spread(tmp_path: Path, share: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=NUM_FRAMES)
    preparation = Preparation(frame_share=Fraction(share))
    target = tmp_path / "prepared.mp4"
    encoded = prepare_video(clip, target, preparation=preparation)
    steps = [-(-k // Fraction(share)) for k in range(NUM_FRAMES)]  # rounded up
    kept = [step for step in steps if step < NUM_FRAMES]
    assert (encoded.frames_before, encoded.frames) == (NUM_FRAMES, len(kept))
    assert indices_of(read_all(target)) == kept
    assert [preparation.position_before(k) for k in range(len(kept))] == kept


@pytest.mark.parametrize(
    ("fps", "kept"), [("2", [0, 4, 8, 12, 16]), ("3", [0, 3, 6, 8, 11, 14, 16, 19]), ("0.1", [0])]
)
def test_a_frame_rate_keeps_the_first_frame_of_each_period(
    tmp_path: Path, fps: str, kept: list[int]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=NUM_FRAMES)  # 8 frames a second
    assert indices_of(read_all(prepare(clip, tmp_path, fps=Fraction(fps)))) == kept


def test_a_higher_frame_rate_adds_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=NUM_FRAMES)
    prepared = prepare(clip, tmp_path, fps=Fraction(60))
    assert indices_of(read_all(prepared)) == list(range(NUM_FRAMES))


def test_variable_frame_rates_keep_times_and_frames(tmp_path: Path) -> None:
    times = [0, 4, 5, 6, 40, 41, 90, 200]
    clip = write_video(tmp_path / "clip.mkv", times=times)
    prepared = prepare(clip, tmp_path)
    assert times_of(prepared) == pytest.approx([time / 100 for time in times], abs=1e-3)
    difference = np.abs(read_all(prepared).astype(int) - read_all(clip)).mean(axis=(1, 2, 3))
    assert difference.max() < 4  # neighbours differ by 16


def test_files_without_times_are_read_in_order(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", num_frames=NUM_FRAMES)
    assert indices_of(read_all(prepare(clip, tmp_path))) == list(range(NUM_FRAMES))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((854, 480), (456, 256)),
        ((480, 854), (256, 456)),
        ((1920, 1080), (456, 256)),
        ((320, 240), (320, 240)),  # never enlarged
        ((427, 241), (426, 240)),
        ((1001, 3), (1000, 2)),
        ((1, 1), (2, 2)),
    ],
)
def test_sizes_are_even_and_not_larger(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert Preparation(shorter_side=256).size(width=before[0], height=before[1]) == after


def test_the_frame_size_can_be_kept() -> None:
    assert Preparation(shorter_side=0).size(width=1920, height=1080) == (1920, 1080)


@pytest.mark.parametrize("size", [(63, 47), (33, 201), (128, 96)])
def test_videos_of_odd_sizes_are_prepared(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = write_video(tmp_path / "clip.mkv", size=size, pixels="yuv444p")
    prepared = prepare(clip, tmp_path, shorter_side=48)
    assert np.abs(read_all(prepared).astype(int) - read_all(clip)).mean() < 4


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 301)])
def test_tiny_videos_are_prepared(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = write_video(tmp_path / "clip.mkv", size=size, pixels="yuv444p")
    assert len(read_all(prepare(clip, tmp_path))) == len(read_all(clip))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_goes_into_the_pixels(tmp_path: Path, rotation: int) -> None:
    clip = write_video(tmp_path / "clip.mp4", codec="libx264", rotation=rotation)
    with av.open(str(clip)) as container:
        assert next(container.decode(video=0)).rotation != 0
    prepared = prepare(clip, tmp_path)
    with av.open(str(prepared)) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == ((64, 48) if rotation == 180 else (48, 64))
    assert frame.rotation == 0
    assert np.abs(read_all(prepared).astype(int) - read_all(clip)).mean() < 4


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("ffv1", "yuv444p"),
        ("ffv1", "yuv420p10le"),
        ("ffv1", "yuva420p"),
        ("ffv1", "gray"),
        ("ffv1", "bgr0"),
        ("mjpeg", "yuvj420p"),  # all 256 levels are used
        ("mjpeg", "yuvj444p"),
    ],
)
def test_other_pixel_formats_look_the_same(tmp_path: Path, codec: str, pixels: str) -> None:
    clip = write_video(tmp_path / "clip.mkv", codec=codec, pixels=pixels)
    prepared = prepare(clip, tmp_path, crf=10)
    with av.open(str(prepared)) as container:
        assert container.streams.video[0].codec_context.pix_fmt in ("yuv420p", "yuvj420p")
    difference = read_all(prepared).astype(int) - read_all(clip)
    assert np.abs(difference).mean() < 3
    assert np.abs(difference.mean(axis=(0, 2, 3))).max() < 2.5  # no tint, neither darker


def test_most_frames_can_be_skipped(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=64)
    with av.open(str(prepare(clip, tmp_path, key_frame_interval=32, b_frames=7))) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
        container.seek(0)
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        referred_to = sum(1 for _ in container.decode(video=0))
    assert keys == [0, 32]
    assert referred_to == 10  # 0, 8, 16, 24, 31 of each group


def test_sound_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=8)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000)
        assert isinstance(sound, av.AudioStream)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 800), np.int16), format="s16", layout="mono"
        )
        silence.sample_rate = 8000
        container.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(sound.encode(silence))
        container.mux([*video.encode(), *sound.encode()])
    with av.open(str(path)) as container:
        assert len(container.streams) == 2
    with av.open(str(prepare(path, tmp_path))) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_a_file_that_is_not_a_video_leaves_no_output(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoReadError, match=r"\w"):
        prepare(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_no_fault_of_the_video(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv")
    with largest_file(1000), pytest.raises(RunError, match="cannot be written: File too large"):
        prepare(clip, tmp_path)
    assert list(tmp_path.iterdir()) == [clip]


def test_a_file_cut_short_gives_the_frames_that_are_there(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mkv", times=range(0, 80, 4))
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    prepared = prepare(clip, tmp_path)
    frames = read_all(prepared)
    assert 1 <= len(frames) < NUM_FRAMES
    assert np.abs(frames.astype(int) - read_all(clip)).mean() < 4
