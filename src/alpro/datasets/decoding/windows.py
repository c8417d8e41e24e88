"""Windows of a long video by time, in one pass and in constant memory.

Frames are chosen by time stamps: the frame of a moment is the one on the screen then. Files without
valid time stamps count frames at their declared rate. Windows that overlap decode and scale each
frame once; at most the frames of the windows that hold one moment are in memory.

Decoding runs in an isolated process, which is asked for a few windows at a time: limits apply to
each request, and a file of any length can be read. A request can be repeated in a fresh process.

Shapes: ``T`` frames of a window, ``S`` side of the square frames in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alpro.datasets.decoding.base import CutOffError, VideoReadError
from alpro.datasets.decoding.pyav_decoder import (
    FrameScaler,
    PyAVDecoder,
    decode_packet,
    open_with_pyav,
    packets_of,
)
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.isolation.process import CallCutOffError, IsolatedProcess

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from alpro.datasets.decoding.formats import OpenVideo

WINDOW_SECONDS, STRIDE_SECONDS = 6.0, 3.0
WINDOWS_PER_REQUEST = 8
SECONDS_PER_REQUEST, MEGABYTES = 60.0, 2048
_FINE = 2882880  # frames of an imaginary video that positions are taken from; many counts divide it
_MOMENT = 1e-6  # seconds, more than the rounding of times
_MICROSECONDS = 1_000_000
_WITHOUT_TIMES = ("avi", "h264", "hevc", "m4v", "mpegvideo")  # FFmpeg counts packets there
_DEFAULT_RATE = 25.0  # frames per second, where a file declares none


class Window(NamedTuple):
    """Frames of a part of a video."""

    start: float
    """Seconds after the first frame."""
    end: float
    frames: np.ndarray
    """(T, 3, S, S) uint8, RGB, preprocessed."""


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """Windows to read of any video."""

    preprocessing: PixelPreprocessing
    num_frames: int
    sampling: str = "segment"
    """Deterministic strategy of `frame_sampling`, by which moments are spread over a window."""
    window: float = WINDOW_SECONDS
    """Seconds; infinite for one window of everything."""
    stride: float = STRIDE_SECONDS
    """Seconds from one start to the next."""
    start: float = 0.0
    end: float = math.inf
    """Seconds after the first frame that the windows lie between."""

    def __post_init__(self) -> None:
        if not (self.window > 0 and self.stride > 0 and 0 <= self.start < self.end):
            raise ValueError(
                f"windows of {self.window:g} s every {self.stride:g} s from {self.start:g} to "
                f"{self.end:g} s: lengths must be positive, and the start before the end"
            )

    def span(self, index: int, *, end: float) -> tuple[float, float] | None:
        """Start and end of a window of a video that ends at `end`; None after the last one."""
        start, end = self.start + (index * self.stride if index else 0.0), min(end, self.end)
        return (start, min(start + self.window, end)) if self.needs(start, end=end) else None

    def needs(self, start: float, *, end: float) -> bool:
        """Whether the window before the one at `start` does not reach the end."""
        reached = start - self.stride + self.window
        return start == self.start or (start < end and reached < end - _MOMENT)

    def moments(self, start: float, end: float) -> np.ndarray:
        """(T,) seconds of the frames of a window."""
        chosen = frame_indices(
            self.sampling, num_video_frames=_FINE, num_frames=self.num_frames, rng=None
        )
        return start + chosen / _FINE * (end - start)


def read_windows(
    video: Path | str,
    *,
    plan: WindowPlan,
    seconds: float = SECONDS_PER_REQUEST,
    megabytes: int = MEGABYTES,
) -> Iterator[Window]:
    """Read the windows of a video file of any length, in order.

    The last window ends with the video, and may be shorter. A video of less than a window is one.

    Args:
        video: a file that PyAV can read.
        plan: which windows.
        seconds: limit of the time for a few windows, 0 for none.
        megabytes: limit of the memory of the process that decodes, 0 for none.

    Raises:
        VideoReadError: the file is no video, or none of its frames can be read; CutOffError where
            a limit was exceeded.

    >>> plan = alpro.load("model").window_plan(window=1.0, stride=0.5)
    >>> for start, end, frames in alpro.read_windows("clip.mp4", plan=plan):
    ...     print(start, end, frames.shape)
    0.0 1.0 (2, 3, 32, 32)
    0.5 1.5 (2, 3, 32, 32)
    1.0 2.0 (2, 3, 32, 32)
    """
    reader = WindowReader(seconds=seconds, megabytes=megabytes)
    try:
        yield from reader.read(video, plan=plan)
    finally:
        reader.close()


class WindowReader:
    """Reader of one video after the other in the same isolated process; see `read_windows`."""

    def __init__(self, *, seconds: float = SECONDS_PER_REQUEST, megabytes: int = MEGABYTES) -> None:
        self.process = IsolatedProcess(
            seconds=seconds, megabytes=megabytes, prepare=PyAVDecoder().load
        )

    def read(self, video: Path | str, *, plan: WindowPlan, first: int = 0) -> Iterator[Window]:
        """Read the windows of a video from number `first` on, in order.

        Raises:
            VideoReadError: see `read_windows`.
        """
        try:
            for number in count(first, step=WINDOWS_PER_REQUEST):
                windows = self.process.call(_windows_from, Path(video), plan, number)
                yield from (Window(*window) for window in windows)
                if len(windows) < WINDOWS_PER_REQUEST:
                    return
        except CallCutOffError as error:
            raise CutOffError(f"cut off: {error}") from error

    def close(self) -> None:
        """End the process."""
        self.process.close()


class _Reading(NamedTuple):
    """The reading that goes on in the isolated process."""

    video: Path
    plan: WindowPlan
    next_window: int
    windows: Iterator[Window]


_readings: list[_Reading] = []  # at most one


def _windows_from(video: Path, plan: WindowPlan, first: int) -> list[Window]:
    """Read some windows from number `first` on; runs in the isolated process."""
    # A fresh process begins anew, where an earlier one has ended.
    going_on = _readings.pop() if _readings else None
    if going_on is not None and going_on[:3] == (video, plan, first):
        windows = going_on.windows
    else:
        windows = _read(video, plan, first)
    chunk = list(islice(windows, WINDOWS_PER_REQUEST))
    _readings.append(_Reading(video, plan, first + len(chunk), windows))
    return chunk


class _Pending:
    """A window whose frames are being collected."""

    def __init__(self, plan: WindowPlan, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.moments = plan.moments(start, end)  # in any order
        size = plan.preprocessing.size
        self.frames = np.zeros((plan.num_frames, 3, size, size), np.uint8)
        self.is_missing = np.ones(plan.num_frames, bool)

    def wants(self, until: float) -> np.ndarray:
        """(T,) bool, missing frames of moments before a time."""
        return self.is_missing & (self.moments < until)

    def put(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        self.frames[rows] = pixels
        self.is_missing[rows] = False


class _Collector:
    """Windows that hold the present moment."""

    def __init__(self, plan: WindowPlan, first: int) -> None:
        self.plan, self.number = plan, first
        self.pending: list[_Pending] = []
        self._scaler = FrameScaler(plan.preprocessing)
        self._pixels = np.empty((3, plan.preprocessing.size, plan.preprocessing.size), np.uint8)

    def take(self, frame: VideoFrame, *, until: float, end: float) -> Iterator[Window]:
        """Take the next frame, shown `until` a time; yields the windows that it completes."""
        # Open the windows that begin before the next frame.
        while (span := self.plan.span(self.number, end=end)) is not None and span[0] < until:
            self.pending.append(_Pending(self.plan, *span))
            self.number += 1
        # Scale the frame once, if a window wants it.
        wanting = [(one, rows) for one in self.pending if (rows := one.wants(until)).any()]
        if wanting:
            self._scaler.write(frame, self._pixels)
        for one, rows in wanting:
            one.put(rows, self._pixels)
        while self.pending and not self.pending[0].is_missing.any():
            one = self.pending.pop(0)
            if self.plan.needs(one.start, end=end):  # the end may have been unknown before
                yield Window(one.start, min(one.end, end), one.frames)


def _read(video: Path, plan: WindowPlan, first: int) -> Iterator[Window]:
    collector, num_frames = _Collector(plan, first), 0
    with open_with_pyav(video) as opened:
        rate, end = _rate_of(opened), _declared_end(video, opened)
        for frame, shown, until in frames_from(opened, seek=plan.start + first * plan.stride):
            num_frames += 1
            # The declared end is not believed if there are frames after it, or none before it.
            if shown > end + 1 / rate:
                end = math.inf
            elif math.isinf(until) and not shown < end <= shown + 1:
                end = shown + 1 / rate
            yield from collector.take(frame, until=until - _MOMENT, end=end)
            if shown > plan.end and not collector.pending:
                return
    if not num_frames and not first:
        raise VideoReadError("PyAV: no frame comes out")


def frames_from(opened: OpenVideo, *, seek: float) -> Iterator[tuple[VideoFrame, float, float]]:
    """Frames with the seconds from which and until which they are shown; inf for the last one.

    From the last key frame before the time to `seek` on.
    """
    stream, rate = opened.stream, _rate_of(opened)
    has_times = opened.container.format.name not in _WITHOUT_TIMES
    unit = float(stream.time_base or 0) if has_times else 0
    origin = stream.start_time
    if seek > 0 and unit:
        opened.container.seek(int((origin or 0) + seek / unit), stream=stream)
    previous: tuple[VideoFrame, float] | None = None
    for packet in chain(packets_of(opened), [None]):
        for frame in decode_packet(stream.codec_context, packet):
            # Times rise; a frame without a valid one follows the frame before at the rate.
            origin = frame.pts if origin is None else origin
            at = 0.0 if previous is None else previous[1] + 1 / rate
            if frame.pts is not None and unit and origin is not None:
                at_stamp = (frame.pts - origin) * unit
                at = at_stamp if previous is None or at_stamp > previous[1] else at
            at = max(at, 0.0)
            if previous is not None:
                yield *previous, at
            previous = frame, at
    if previous is not None:
        yield *previous, math.inf


def _rate_of(opened: OpenVideo) -> float:
    return float(opened.stream.average_rate or opened.stream.guessed_rate or _DEFAULT_RATE)


def declared_seconds(video: Path) -> float:
    """Length of a video as the file declares it; 0 where it does not.

    Raises:
        VideoReadError: the file is no video.
    """
    with open_with_pyav(video) as opened:
        return _declared(opened)


def _declared(opened: OpenVideo) -> float:
    stream, container = opened.stream, opened.container
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / _MICROSECONDS


def _declared_end(video: Path, opened: OpenVideo) -> float:
    """Seconds that a file declares, or else those of its packets."""
    if seconds := _declared(opened):
        return seconds
    with open_with_pyav(video) as again:
        return sum(1 for _ in packets_of(again)) / _rate_of(opened)
