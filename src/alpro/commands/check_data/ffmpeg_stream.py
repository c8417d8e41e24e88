"""Header and packets of a video file, read by PyAV (FFmpeg's libraries)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import av
import av.logging

from alpro.datasets.decoding import Video, VideoReadError
from alpro.datasets.decoding.formats import open_video
from alpro.errors import pluralize

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

_MICROSECONDS = 1e6


@dataclass(slots=True)
class _PacketCounts:
    """Totals over the packets of a stream."""

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
        """Extend the range of presentation times."""
        if time is not None:
            self.first = time if self.first is None else min(self.first, time)
            self.last = time if self.last is None else max(self.last, time)


def describe(video: Video, *, full: bool) -> dict[str, Any]:
    """Fields of a `Probe`: size, codec, rotation, rate, and lengths as declared and as counted.

    Args:
        video: the file.
        full: decode all frames, and count those that fail; else only the first one, for the
            rotation.

    Raises:
        VideoReadError: there is no video in it.
    """
    try:
        with open_video(video) as (container, stream):
            header = {
                "container": container.format.name,
                "codec": stream.codec_context.codec.canonical_name,
                "width": stream.codec_context.width or None,
                "height": stream.codec_context.height or None,
                "declared_frames": stream.frames or None,
                "declared_seconds": _declared_seconds(container.duration, stream),
            }
            counts = _count(container.demux(stream), stream.codec_context, full=full)
            return header | _of_packets(counts, stream, full=full)
    except av.error.FFmpegError as error:
        raise VideoReadError(f"{error.strerror}") from error


@contextmanager
def errors_of_ffmpeg() -> Iterator[list[str]]:
    """Context that collects the error messages of FFmpeg's libraries; intact files give none."""
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


def _count(packets: Iterator[Packet], codec: VideoCodecContext, *, full: bool) -> _PacketCounts:
    counts = _PacketCounts()
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            counts.ended_early = str(error.strerror)
            packet = None
        if packet is None or not packet.size:
            if full or counts.rotation is None:
                _decode(codec, None, counts)
            if packet is None:
                return counts
            continue
        # Discarded packets are decoded but not shown.
        counts.num_corrupt += packet.is_corrupt
        if not packet.is_discard:
            counts.num_shown += 1
            counts.note_time(packet.pts)
        if full or counts.rotation is None:
            _decode(codec, packet, counts)


def _decode(codec: VideoCodecContext, packet: Packet | None, counts: _PacketCounts) -> None:
    try:
        for frame in codec.decode(packet):
            counts.num_decoded += 1
            counts.num_corrupt += frame.is_corrupt
            if counts.rotation is None:
                counts.rotation = round(frame.rotation)
    except av.error.EOFError:
        pass  # nothing is held back
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        counts.num_errors += 1
        counts.messages.append(str(error.strerror))


def _of_packets(counts: _PacketCounts, stream: VideoStream, *, full: bool) -> dict[str, Any]:
    troubles = [f"the file ends early ({counts.ended_early})"] if counts.ended_early else []
    if counts.num_corrupt:
        marked = pluralize(counts.num_corrupt, "packet or frame", "packets or frames")
        troubles.append(f"{marked} marked as corrupt")
    if full and counts.num_errors:
        failed = (
            f"{counts.num_errors:,} of {pluralize(counts.num_shown, 'packet')} cannot be decoded"
        )
        troubles.append(f"{failed} ({counts.messages[0]})")
    if full and not counts.num_errors and counts.num_decoded < counts.num_shown:
        packets = pluralize(counts.num_shown, "packet")
        troubles.append(f"only {pluralize(counts.num_decoded, 'frame')} decoded from {packets}")
    # The rate follows from what is shown, not from the header.
    seconds = _seconds(counts, stream)
    return {
        "rotation": counts.rotation or 0,
        "num_frames": counts.num_decoded if full else counts.num_shown,
        "seconds": seconds,
        "fps": round(counts.num_shown / seconds, 3) if seconds else None,
        "trouble": "; ".join(troubles),
    }


def _seconds(counts: _PacketCounts, stream: VideoStream) -> float | None:
    """From the first frame to the end of the last, taken to last as long as a mean one."""
    if counts.first is None or counts.last is None or stream.time_base is None:
        return None
    between = float((counts.last - counts.first) * stream.time_base)
    if counts.num_shown < 2 or between <= 0:
        rate = stream.average_rate or stream.guessed_rate
        return round(1 / float(rate), 3) if rate else None
    return round(between * counts.num_shown / (counts.num_shown - 1), 3)
