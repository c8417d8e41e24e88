"""Every decoder reads exactly the frames that were asked for, whatever the file is like."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from alpro.datasets.decoding import make_decoder
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from tests.datasets.clips import SMALL
from tests.datasets.decoders import installed_decoder
from tests.shared_data import shared_data

LIBRARIES = ("pyav", "decord", "torchcodec")
NUM_FRAMES = 60
GREY_STEP = 4
"""Frame ``i`` of the clips made here is grey of level ``GREY_STEP * i``."""
UNITS_A_SECOND = 300

EVEN = [10 * i for i in range(NUM_FRAMES)]
UNEVEN = np.cumsum(np.random.default_rng(0).integers(3, 40, NUM_FRAMES)).tolist()
B_FRAMES = "keyint=250:bframes=3:b-pyramid=normal:b-adapt=0"
SHORT_GROUPS = "keyint=12:bframes=3:b-adapt=0:scenecut=0"
OPEN_GROUPS = "keyint=8:min-keyint=8:open-gop=1:bframes=3:b-adapt=0:scenecut=0"

READ_RIGHT_BY_ALL = [
    ("clip.mp4", EVEN, B_FRAMES),
    ("clip.mkv", EVEN, B_FRAMES),
    ("clip.mp4", EVEN, SHORT_GROUPS),
    ("clip.mp4", UNEVEN, SHORT_GROUPS),
    ("clip.mkv", UNEVEN, SHORT_GROUPS),
    ("clip.mp4", [time + 95 for time in EVEN], SHORT_GROUPS),  # an edit list: starts late
]
READ_RIGHT_BY_PYAV = [  # decord and torchcodec take other frames, or end with an error
    ("clip.mp4", EVEN, OPEN_GROUPS),
    ("clip.mkv", EVEN, OPEN_GROUPS),
    ("clip.mp4", UNEVEN, OPEN_GROUPS),
    ("clip.ts", EVEN, SHORT_GROUPS),
    ("clip.avi", EVEN, SHORT_GROUPS),
]


def write_greys(path: Path, times: Sequence[int], parameters: str, **options: str) -> Path:
    """Write a clip with frames at these times, in units of 1 / ``UNITS_A_SECOND``."""
    unit = Fraction(1, UNITS_A_SECOND)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.height = stream.width = 64
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = unit
        stream.options = {"qp": "4", "x264-params": parameters}
        for index, time in enumerate(times):
            grey = np.full((64, 64, 3), GREY_STEP * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            frame.pts, frame.time_base = time, unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_positions(path: Path, name: str, wanted: Sequence[int]) -> list[int]:
    """Which frames come for those wanted; negative ones count from the end."""
    frames = installed_decoder(name).read(  # unscaled: scaling moves levels by up to 2
        path,
        lambda num_frames: np.array(wanted) % num_frames,
        preprocessing=SMALL,
    )
    return np.rint(frames.mean(axis=(1, 2, 3)) / GREY_STEP).astype(int).tolist()


SELECTIONS = [[*range(0, NUM_FRAMES, 3), 59], [7], [0, 59], [30, 31, 31, 32]]


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(("file_name", "times", "parameters"), READ_RIGHT_BY_ALL)
def test_all_decoders_read_the_selected_frames(
    tmp_path: Path, file_name: str, times: list[int], parameters: str, name: str
) -> None:
    path = write_greys(tmp_path / file_name, times, parameters)
    for wanted in SELECTIONS:
        assert read_positions(path, name, wanted) == wanted


@pytest.mark.parametrize("name", ["pyav", "auto"])
@pytest.mark.parametrize(("file_name", "times", "parameters"), READ_RIGHT_BY_PYAV)
def test_pyav_reads_the_frames_asked_for_where_others_do_not(
    tmp_path: Path, file_name: str, times: list[int], parameters: str, name: str
) -> None:
    path = write_greys(tmp_path / file_name, times, parameters)
    for wanted in SELECTIONS:
        assert read_positions(path, name, wanted) == wanted


@pytest.mark.parametrize("name", ["pyav", "torchcodec"])
def test_frames_that_an_edit_list_cuts_off_are_not_counted(tmp_path: Path, name: str) -> None:
    times = [time - 45 for time in EVEN]  # five frames, and a half, before the start
    path = write_greys(tmp_path / "clip.mp4", times, B_FRAMES, avoid_negative_ts="disabled")
    assert read_positions(path, name, [0, 1, 20, -1]) == [5, 6, 25, 59]


@pytest.fixture(scope="module")
def real_clips() -> list[Path]:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    return sorted((shared / "real/videos").iterdir())


def _evenly(num_video_frames: int) -> np.ndarray:
    return frame_indices("nlvl_uniform", num_video_frames=num_video_frames, num_frames=8, rng=None)


@pytest.mark.parametrize(
    ("name", "gap"),
    [("decord", 1.0), ("torchcodec", 4.0)],  # measured: 0.0 to 0.9 and 0.6 to 3.1
)
def test_libraries_read_the_same_frames_of_real_clips(
    real_clips: list[Path], name: str, gap: float
) -> None:
    """The frame closest to each of theirs is ours, not one beside it; and few pixels differ."""
    decoder = installed_decoder(name)
    for path in real_clips:
        counts: list[int] = []

        def select(num_video_frames: int, counts: list[int] = counts) -> np.ndarray:
            counts.append(num_video_frames)
            return _evenly(num_video_frames)

        def with_neighbours(num_video_frames: int, counts: list[int] = counts) -> np.ndarray:
            counts.append(num_video_frames)
            near = _evenly(num_video_frames)[:, None] + [-1, 0, 1]
            return np.clip(near, 0, num_video_frames - 1).ravel()

        theirs = decoder.read(path, select, preprocessing=PixelPreprocessing(size=112)).astype(int)
        ours = PyAVDecoder().read(path, with_neighbours, preprocessing=PixelPreprocessing(size=112))
        assert counts[0] == counts[1], path.name
        gaps = np.abs(theirs[:, None] - ours.reshape(-1, 3, 3, 112, 112)).mean(axis=(2, 3, 4))
        assert (gaps[:, 1] <= gaps.min(axis=1) + 0.01).all(), path.name  # (T, 3) before, own, after
        assert gaps[:, 1].mean() < gap, path.name


def test_bytes_give_the_same_frames_as_files_of_real_clips(real_clips: list[Path]) -> None:
    decoder = make_decoder("pyav")
    for path in real_clips[::4]:
        from_file = decoder.read(path, _evenly, preprocessing=SMALL)
        from_bytes = decoder.read(path.read_bytes(), _evenly, preprocessing=SMALL)
        np.testing.assert_array_equal(from_bytes, from_file)
