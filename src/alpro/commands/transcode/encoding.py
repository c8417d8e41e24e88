"""Transcoding of one video.

All decoded frames are encoded in presentation order, upright: frame ``i`` of the prepared file is
frame ``i`` of those kept. Colours keep their meaning: the encoder gets the matrix, range and
transfer of the original.

Shapes: ``H`` height and ``W`` width in pixels.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from alpro.commands.transcode.settings import Preparation
from alpro.datasets.decoding.base import Video, VideoReadError
from alpro.datasets.decoding.formats import open_video
from alpro.errors import pluralize
from alpro.training.atomic_io import full_disk_ends_run

_SCALING = "BICUBIC"
_PIXEL_FORMAT = "yuv420p"
_QUARTER_TURN_DEGREES = 90
_USUAL_FRAME_RATE = Fraction(25)
_LARGEST_FRAME_RATE = 1000
"""Frames per second; a header with more is wrong, or has the time base instead."""
_LARGEST_STEP = 2**31 - 1
"""From frame to frame, in units of time; MP4 holds no larger one."""
_FAULTS_OF_VIDEOS = (av.error.FFmpegError, ValueError, OverflowError)
DISK_ERRORS = frozenset({
    *(errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.EMFILE),
    *(errno.ENFILE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO),
})  # fmt: skip
"""Error numbers caused by the disk or by permissions, not by the video."""
_READ_BYTES = 1 << 20  # at a time
_MATRIX_OF_RGB = 0
_MATRIX_OF_601 = 6
"""Colour matrices, as H.273 numbers them."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Figures of an encoded video."""

    num_bytes: int
    frames_before: int
    frames: int
    broken_packets: int
    """Packets of the original that cannot be decoded; their frames are missing."""


def prepare_video(video: Video, target: Path, *, preparation: Preparation) -> Encoded:
    """Transcode a video into an MP4 file without sound.

    Args:
        video: the original.
        target: the file to write; removed on failure.
        preparation: settings of the transcoding.

    Raises:
        VideoReadError: no frame comes out of the original, or it cannot be encoded.
        OSError: the original cannot be read; with one of ``DISK_ERRORS``, another time perhaps.
        RunError: the disk is full.
    """
    try:
        with full_disk_ends_run(target):
            return _prepare(video, target, preparation)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            raise OSError(error.errno, os.strerror(error.errno), str(error.filename)) from error
        if isinstance(error, _FAULTS_OF_VIDEOS) and not isinstance(error, MemoryError):
            raise VideoReadError(f"PyAV: {_reason(error)}") from error
        raise


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    if isinstance(error, av.error.ExternalError):
        return f"{reason} (libx264, possibly out of memory)"
    return reason


def _prepare(video: Video, target: Path, preparation: Preparation) -> Encoded:
    with open_video(video) as (container, stream):
        frames = _Frames(container, stream)
        num_frames = _encode(frames, target, preparation)
    if frames.ended_by_disk and isinstance(video, Path):
        _read_through(video)
    if not num_frames:
        packets = pluralize(frames.num_packets, "video packet")
        raise VideoReadError(f"no frame can be decoded from {packets}")
    return Encoded(target.stat().st_size, frames.count, num_frames, frames.broken_packets)


def _read_through(path: Path) -> None:
    """Read a file to its end: FFmpeg reports disk errors also for truncated files.

    Raises:
        OSError: the disk fails.
    """
    with path.open("rb") as file:
        while file.read(_READ_BYTES):
            pass


def _encode(frames: _Frames, target: Path, preparation: Preparation) -> int:
    """Write the frames that are kept; returns how many."""
    keep = preparation.keeping()
    num_frames = 0
    with av.open(str(target), "w", format="mp4") as output:
        encoder = None
        for frame, time in frames:
            if not keep(time * frames.time_base):
                continue
            encoder = encoder or _Encoder(output, frame, frames, preparation)
            encoder.add(frame, time)
            num_frames += 1
        if encoder is not None:
            encoder.finish()
    return num_frames


class _Frames:
    """All frames of a video with their times, which increase and begin with 0.

    A frame without a time, or with one that is not later than that of the frame before, is shown
    one frame's usual time after that.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container = container
        self.stream = stream
        self.time_base = stream.time_base or Fraction(1, 90_000)  # seconds
        self.rate = _frame_rate(stream)
        self.count = 0
        self.num_packets = 0
        self.broken_packets = 0
        self.ended_by_disk = False

    def __iter__(self) -> Iterator[tuple[VideoFrame, int]]:
        usual = max(round(1 / (self.rate * self.time_base)), 1)
        # Times start at 0 and increase, whatever the file declares.
        begin: int | None = None
        last = -usual
        for frame in self._decoded():
            time = last + usual
            if frame.pts is not None:
                begin = frame.pts - time if begin is None else begin
                if last < frame.pts - begin <= last + _LARGEST_STEP:
                    time = frame.pts - begin
            last = time
            self.count += 1
            yield frame, time

    def _decoded(self) -> Iterator[VideoFrame]:
        for packet in chain(self._packets(), [None]):
            try:
                frames = self.stream.codec_context.decode(packet)
            except MemoryError:  # also FFmpeg's: not the packet's fault
                raise
            except av.error.FFmpegError:
                self.broken_packets += 1
                continue
            yield from frames

    def _packets(self) -> Iterator[av.Packet]:
        """The stream's packets in file order; a truncated file ends early."""
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except MemoryError:
                raise
            except av.error.FFmpegError as error:
                self.ended_by_disk = error.errno in DISK_ERRORS
                return
            if packet is None:
                return
            if packet.size:
                self.num_packets += 1
                yield packet


def _frame_rate(stream: VideoStream) -> Fraction:
    rates = (stream.average_rate, stream.guessed_rate)
    return next((rate for rate in rates if rate and 0 < rate <= _LARGEST_FRAME_RATE), None) or (
        _USUAL_FRAME_RATE
    )


class _Encoder:
    """Scales, rotates and encodes frames, all with the settings of the first one."""

    def __init__(
        self, output: OutputContainer, first: VideoFrame, frames: _Frames, preparation: Preparation
    ) -> None:
        self.output = output
        self.time_base = frames.time_base
        self.size = preparation.size(width=first.width, height=first.height)
        self.turns = round(first.rotation / _QUARTER_TURN_DEGREES) % 4
        self.colours = _Colours(first)
        self.reformatter = VideoReformatter()
        self.stream = output.add_stream(
            "libx264",
            rate=preparation.rate(frames.rate),
            options=preparation.encoder_options(),
        )
        self._describe(self.stream.codec_context, frames.stream.sample_aspect_ratio)

    def _describe(self, codec: av.VideoCodecContext, aspect: Fraction | None) -> None:
        sideways = self.turns % 2 == 1
        codec.width, codec.height = self.size[::-1] if sideways else self.size
        codec.pix_fmt = _PIXEL_FORMAT
        codec.time_base = self.time_base
        codec.colorspace = self.colours.matrix
        codec.color_range = self.colours.range
        codec.color_primaries = self.colours.primaries
        codec.color_trc = self.colours.transfer
        if aspect:
            codec.sample_aspect_ratio = 1 / aspect if sideways else aspect

    def add(self, frame: VideoFrame, time: int) -> None:
        """Encode a frame that is shown at this time, in the original's units."""
        width, height = self.size
        scaled = self.reformatter.reformat(
            frame,
            width,
            height,
            _PIXEL_FORMAT,
            interpolation=_SCALING,
            **self.colours.conversion(),
            threads=1,
        )
        if self.turns:
            scaled = _turned(scaled, self.turns)
        scaled.pts, scaled.time_base = time, self.time_base
        scaled.pict_type = PictureType.NONE  # the original's key frames are not ours
        self.output.mux(self.stream.encode(scaled))

    def finish(self) -> None:
        """Flush the encoder."""
        self.output.mux(self.stream.encode(None))


class _Colours:
    """Colour space of a video, as declared by its first frame; the prepared file keeps it.

    RGB becomes the default of all decoders: BT.601 of limited range.
    """

    def __init__(self, first: VideoFrame) -> None:
        self.is_rgb = first.format.is_rgb or first.colorspace == _MATRIX_OF_RGB
        self.matrix = _MATRIX_OF_601 if self.is_rgb else int(first.colorspace)
        is_full = first.color_range == ColorRange.JPEG or first.format.name.startswith("yuvj")
        self.range = ColorRange.JPEG if is_full and not self.is_rgb else ColorRange.MPEG
        self.primaries = int(first.color_primaries)
        self.transfer = int(first.color_trc)

    def conversion(self) -> dict[str, Any]:
        """Arguments of reformatting."""
        if self.is_rgb:
            return {"dst_colorspace": "ITU601", "dst_color_range": self.range}
        return {"src_color_range": self.range, "dst_color_range": self.range}


def _turned(frame: VideoFrame, turns: int) -> VideoFrame:
    """A yuv420p frame, rotated counter-clockwise by quarter turns."""
    height, width = frame.height, frame.width
    packed = frame.to_ndarray().ravel()  # (H*W + 2 * H/2*W/2,)
    # Planes of yuv420p: full-size brightness, then two of half size.
    brightness, *colours = np.split(packed, [height * width, height * width * 5 // 4])
    planes = [
        np.rot90(brightness.reshape(height, width), k=turns),
        *(np.rot90(plane.reshape(height // 2, width // 2), k=turns) for plane in colours),
    ]
    pixels = np.concatenate([plane.ravel() for plane in planes])
    return VideoFrame.from_ndarray(pixels.reshape(-1, planes[0].shape[1]), format=_PIXEL_FORMAT)
