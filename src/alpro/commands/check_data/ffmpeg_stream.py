"""What a video file says of itself, and what is in it, by PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import av
import av.logging

from alpro.datasets.decoding import Video, VideoReadError
from alpro.datasets.decoding.formats import open_video

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_MICROSECONDS = 1e6


@dataclass(slots=True)
class _Counted:
    """What the packets of a stream come to."""

    num_shown: int = 0
    num_decoded: int = 0
    num_errors: int = 0
    num_corrupt: int = 0
    rotation: int | None = None
    first: int | None = None
    """Presentation time in the stream's own units, as the next."""
    last: int | None = None
    ended_early: str = ""
    messages: list[str] = field(default_factory=list)

    def note_time(self, time: int | None) -> None:
        """Take note of when a frame is shown."""
        if time is not None:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)


def describe(video: Video, *, full: bool) -> dict[str, Any]:
    """Fields of a `Probe`: size, codec, rotation, rate, and lengths as declared and as counted.

    Args:
        video: the file.
        full: decode all frames, and tell how many could not be; else only the first one, for the
            rotation.

    Raises:
        VideoReadError: there is no video in it.
    """
    try:
        with open_video(video) as (container, stream):
            said = {
                "container": container.format.name,
                "codec": stream.codec_context.codec.canonical_name,
                "width": stream.codec_context.width or None,
                "height": stream.codec_context.height or None,
                "declared_frames": stream.frames or None,
                "declared_seconds": _declared_seconds(container.duration, stream),
            }
            pluralize = _count(container.demux(stream), stream.codec_context, full=full)
            return said | _of_packets(pluralize, stream, full=full)
    except av.error.FFmpegError as error:
        raise VideoReadError(f"{error.strerror}") from error


@contextmanager
def errors_of_ffmpeg() -> Iterator[list[str]]:
    """Collects what FFmpeg's libraries complain of meanwhile; of sound files it is nothing."""
    errors: list[str] = []
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as logs:
            yield errors
    finally:
        av.logging.set_level(level)
        errors += [message.strip() for _, _, message in logs]


def _declared_seconds(duration: int | None, stream: VideoStream) -> float | None:
    """The stream's own length, else the file's, which other streams may determine."""
    if stream.duration and stream.time_base:
        return round(float(stream.duration * stream.time_base), 3)
    return round(duration / _MICROSECONDS, 3) if duration and duration > 0 else None


def _count(packets: Iterator[Packet], codec: VideoCodecContext, *, full: bool) -> _Counted:
    pluralize = _Counted()
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            pluralize.ended_early = str(error.strerror)
            packet = None
        if packet is None or not packet.size:
            if full or pluralize.rotation is None:
                _decode(codec, None, pluralize)
            if packet is None:
                return pluralize
            continue
        pluralize.num_corrupt += packet.is_corrupt
        if not packet.is_discard:
            pluralize.num_shown += 1
            pluralize.note_time(packet.pts)
        if full or pluralize.rotation is None:
            _decode(codec, packet, pluralize)


def _decode(codec: VideoCodecContext, packet: Packet | None, pluralize: _Counted) -> None:
    try:
        for frame in codec.decode(packet):
            pluralize.num_decoded += 1
            pluralize.num_corrupt += frame.is_corrupt
            if pluralize.rotation is None:
                pluralize.rotation = round(frame.rotation)
    except av.error.EOFError:
        pass  # nothing is held back
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        pluralize.num_errors += 1
        pluralize.messages.append(str(error.strerror))


def _of_packets(pluralize: _Counted, stream: VideoStream, *, full: bool) -> dict[str, Any]:
    troubles = [f"the file ends early ({pluralize.ended_early})"] if pluralize.ended_early else []
    if pluralize.num_corrupt:
        troubles.append(f"{pluralize.num_corrupt} packets or frames are marked as corrupt")
    if full and pluralize.num_errors:
        found = f"{pluralize.num_errors} of {pluralize.num_shown} packets cannot be decoded"
        troubles.append(f"{found} ({pluralize.messages[0]})")
    if full and not pluralize.num_errors and pluralize.num_decoded < pluralize.num_shown:
        troubles.append(f"{pluralize.num_shown} packets give only {pluralize.num_decoded} frames")
    seconds = _seconds(pluralize, stream)
    return {
        "rotation": pluralize.rotation or 0,
        "num_frames": pluralize.num_decoded if full else pluralize.num_shown,
        "seconds": seconds,
        "fps": round(pluralize.num_shown / seconds, 3) if seconds else None,
        "trouble": "; ".join(troubles),
    }


def _seconds(pluralize: _Counted, stream: VideoStream) -> float | None:
    """From the first frame to the end of the last, taken to last as long as a mean one."""
    if pluralize.first is None or pluralize.last is None or stream.time_base is None:
        return None
    between = float((pluralize.last - pluralize.first) * stream.time_base)
    if pluralize.num_shown < 2 or between <= 0:
        rate = stream.average_rate or stream.guessed_rate
        return round(1 / float(rate), 3) if rate else None
    return round(between * pluralize.num_shown / (pluralize.num_shown - 1), 3)
