"""Windows of videos: moments by time stamps, one pass, constant memory."""

from __future__ import annotations

import csv
import math
import os
import signal
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from alpro.datasets.decoding import make_decoder
from alpro.datasets.decoding import windows as reading
from alpro.datasets.decoding.base import CutOffError, VideoReadError
from alpro.datasets.decoding.windows import Window, WindowPlan, read_windows
from alpro.datasets.frame_sampling import frame_indices
from alpro.isolation.process import IsolatedProcess
from tests.datasets.clips import GREY_STEP, SMALL, indices_of, write_clip
from tests.shared_data import shared_data

RATE = 8  # frames per second of test clips


def plan_of(**changes: object) -> WindowPlan:
    return WindowPlan(**{"preprocessing": SMALL, "num_frames": 2, **changes})  # type: ignore[arg-type]


def spans(windows: list[Window]) -> list[tuple[float, float]]:
    return [(round(one.start, 3), round(one.end, 3)) for one in windows]


def write_times(path: Path, times: list[float], *, group_size: int = 250) -> Path:
    """Frame i of level i is shown from times[i] on; as long as the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        assert isinstance(stream, av.VideoStream)
        stream.height = stream.width = 64
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.gop_size = group_size
        for index, time in enumerate(times):
            pixels = np.full((64, 64, 3), GREY_STEP * index % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_windows_cover_a_video(tmp_path: Path, suffix: str) -> None:
    clip = write_clip(tmp_path / f"a.{suffix}", num_frames=20)  # 2.5 s
    windows = list(read_windows(clip, plan=plan_of(window=1.0, stride=0.5)))
    assert spans(windows) == [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.5, 2.5)]
    assert [indices_of(one.frames) for one in windows] == [[2, 6], [6, 10], [10, 14], [14, 18]]


@pytest.mark.parametrize("num_frames", [1, 5, 16, 21])
@pytest.mark.parametrize("sampling", ["segment", "nlvl_uniform"])
def test_a_window_of_everything_has_the_frames_of_the_decoder(
    tmp_path: Path, num_frames: int, sampling: str
) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=num_frames)
    plan = plan_of(window=math.inf, num_frames=4, sampling=sampling)
    (window,) = read_windows(clip, plan=plan)
    chosen = frame_indices(sampling, num_video_frames=num_frames, num_frames=4, rng=None)
    assert indices_of(window.frames) == chosen.tolist()
    expected = make_decoder("pyav").read(clip, lambda _: chosen, preprocessing=SMALL)
    assert (window.frames == expected).all()
    assert spans([window]) == [(0.0, num_frames / RATE)]


def test_the_last_window_ends_with_the_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=20)
    windows = list(read_windows(clip, plan=plan_of(window=2.0, stride=1.5)))
    assert spans(windows) == [(0.0, 2.0), (1.5, 2.5)]
    assert indices_of(windows[1].frames) == [14, 18]


def test_a_part_of_a_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=20, group_size=4)
    windows = list(read_windows(clip, plan=plan_of(window=0.5, stride=0.5, start=1.0, end=1.75)))
    assert spans(windows) == [(1.0, 1.5), (1.5, 1.75)]
    assert [indices_of(one.frames) for one in windows] == [[9, 11], [12, 13]]


def test_frames_are_chosen_by_time(tmp_path: Path) -> None:
    # The first three frames take a second each, the others a tenth; the first time is not 0.
    times = [5.0, 6.0, 7.0, *(8.0 + 0.1 * i for i in range(10))]
    clip = write_times(tmp_path / "a.mkv", times)
    plan = plan_of(window=1.0, stride=1.0, num_frames=2)
    windows = [indices_of(one.frames) for one in read_windows(clip, plan=plan)]
    assert windows[:4] == [[0, 0], [1, 1], [2, 2], [5, 10]]


def test_many_windows_are_read_in_several_requests(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=21)
    plan = plan_of(window=0.25, stride=0.125, num_frames=1)
    windows = list(read_windows(clip, plan=plan))
    assert len(windows) == 20 > 2 * reading.WINDOWS_PER_REQUEST
    assert [indices_of(one.frames)[0] for one in windows] == list(range(1, 21))


def test_a_request_is_repeated_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=21, group_size=5)
    plan = plan_of(window=0.25, stride=0.125, num_frames=1)
    expected = [indices_of(one.frames) for one in read_windows(clip, plan=plan)]
    processes: list[IsolatedProcess] = []

    class Remembered(IsolatedProcess):
        def __init__(self, **limits: object) -> None:
            super().__init__(**limits)  # type: ignore[arg-type]
            processes.append(self)

    monkeypatch.setattr(reading, "IsolatedProcess", Remembered)
    windows = []
    for number, one in enumerate(read_windows(clip, plan=plan)):
        windows.append(indices_of(one.frames))
        if number == 2:
            child = processes[0]._child  # noqa: SLF001
            assert child is not None
            os.kill(child.process.pid, signal.SIGKILL)
    assert windows == expected


def test_files_without_frames_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(VideoReadError, match="holds a text"):
        list(read_windows(tmp_path / "a.mp4", plan=plan_of()))
    with pytest.raises(VideoReadError, match="No such file"):
        list(read_windows(tmp_path / "b.mp4", plan=plan_of()))


def test_a_request_that_takes_too_long_is_cut_off(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", num_frames=200, height=512, width=512)
    with pytest.raises(CutOffError, match="longer than 0.001 seconds"):
        list(read_windows(clip, plan=plan_of(), seconds=0.001))


def test_impossible_windows_are_refused() -> None:
    for changes in ({"stride": 0.0}, {"window": -1.0}, {"start": 2.0, "end": 1.0}):
        with pytest.raises(ValueError, match="lengths must be positive"):
            plan_of(**changes)


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    def peak(clip: Path) -> int:
        process = IsolatedProcess()
        try:
            process.call(_drain, clip, plan_of(window=2.0, stride=1.0))
            return process.call(_peak_kilobytes)
        finally:
            process.close()

    short = write_clip(tmp_path / "short.mp4", num_frames=80, group_size=40)
    long = write_clip(tmp_path / "long.mp4", num_frames=4800, group_size=40)
    assert peak(long) - peak(short) < 4096


def _drain(clip: Path, plan: WindowPlan) -> None:
    number = 0
    while windows := reading._windows_from(clip, plan, number):  # noqa: SLF001
        number += len(windows)


def _peak_kilobytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_odd_files_give_windows_or_a_reason() -> None:
    shared = shared_data()
    if shared is None:
        pytest.skip("the optional ../shared data is not here")
    with (shared / "real/odd.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    for row in rows:
        path, is_readable = shared / "real/odd" / row["file"], row["frames"] > "0"
        try:
            windows = list(read_windows(path, plan=plan_of(window=2.0, stride=1.0)))
        except VideoReadError:
            assert not is_readable, path
        else:
            assert is_readable, path
            assert windows, path
            assert all(a.start < b.start for a, b in zip(windows, windows[1:], strict=False)), path
