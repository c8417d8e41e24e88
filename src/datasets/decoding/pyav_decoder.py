"""Decoding with PyAV (FFmpeg's libraries).

A first pass reads the packets without decoding them: it counts the frames and tells where key
frames are. The second decodes only groups of pictures that hold a wanted frame, and of these only
what the wanted frame may refer to: 8 uniform frames of three real h264 clips came 1.4 to 2.2 times
as fast as by decoding everything, and identical. Files whose timestamps or packet counts do not
hold are decoded from the start, in order.

Shapes: ``T`` wanted frames, ``H`` and ``W`` their height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.datasets.decoding.contract import FrameSelector, VideoReadError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_LIKE_DECORD = "BILINEAR"
"""Mean distance from decord 0.6 on 26 real clips: median 0.2 grey levels, with bicubic 1.2."""
_QUARTER_TURN_DEGREES = 90
_FIRST_WITH_SCALING_THREADS = 18
"""Major version of PyAV that scales with a thread per core unless told otherwise."""


class PyAVDecoder:
    """Reads what FFmpeg can read, a broken packet here or there included; one thread per file."""

    def read(self, path: Path, select: FrameSelector, *, height: int, width: int) -> np.ndarray:
        """Read the wanted frames, (T, 3, H, W) uint8; see ``Decoder.read``."""
        index = _index_packets(path)
        if index.num_frames == 0:
            raise VideoReadError("PyAV: no video packets")
        wanted = select(index.num_frames)
        to_pixels = _Scaler(height=height, width=width)
        if index.has_sound_times():
            in_order = index.times()
            times = [in_order[position] for position in wanted]
            frames = _read_by_time(path, index, times, to_pixels)
            if frames.keys() == set(times):
                return np.stack([frames[time] for time in times])
        frames, num_decoded = _read_in_order(path, wanted, to_pixels)
        if num_decoded == 0:
            raise VideoReadError(f"PyAV: no frame comes out of {len(index.packets)} video packets")
        if num_decoded != index.num_frames:  # the choice was made from a wrong count
            wanted = select(num_decoded)
            frames, _ = _read_in_order(path, wanted, to_pixels)
        return np.stack([frames[position] for position in wanted.tolist()])


def check_declared_length(path: Path) -> None:
    """VideoReadError where the file's header declares more frames than the file has bytes.

    Other libraries trust such a number and ask for memory for it; it takes 0.2 ms to look first.
    """
    with _open_video(path) as (_container, stream):
        if stream.frames > path.stat().st_size:
            raise VideoReadError(f"the header declares {stream.frames} frames, more than bytes")


@dataclass(frozen=True, slots=True)
class _PacketInfo:
    """What is known of a packet before it is decoded."""

    time: int | None  # presentation time in the stream's own units
    starts_group: bool  # a key frame: decoding can begin here
    shown: bool  # False for frames that are decoded for others' sake only


@dataclass(frozen=True, slots=True)
class _PacketIndex:
    """The packets of a video in file order."""

    packets: list[_PacketInfo]
    reordered: bool  # the codec shows frames in another order than the file's

    @property
    def num_frames(self) -> int:
        return sum(packet.shown for packet in self.packets)

    def times(self) -> list[int]:
        """The known presentation times, in the order of presentation."""
        return sorted(p.time for p in self.packets if p.shown and p.time is not None)

    def has_sound_times(self) -> bool:
        """Whether frames can be told by their times: known, distinct, and no mere file order.

        AVI files have no presentation times; FFmpeg then counts packets, which names the wrong
        frames where the codec reorders them.
        """
        in_file_order = [packet.time for packet in self.packets if packet.shown]
        times = self.times()
        distinct = len(set(times)) == len(in_file_order)
        return distinct and not (self.reordered and times == in_file_order)


class _Scaler:
    """Turns decoded frames into upright RGB pixels of one size."""

    def __init__(self, *, height: int, width: int) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self.height = height
        self.width = width
        self.reformatter = VideoReformatter()  # keeps its tables from frame to frame
        major = int(av.__version__.split(".")[0])
        self.options = {"threads": 1} if major >= _FIRST_WITH_SCALING_THREADS else {}

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """(3, H, W) uint8 RGB."""
        turns = round(frame.rotation / _QUARTER_TURN_DEGREES) % 4
        height, width = (self.width, self.height) if turns % 2 else (self.height, self.width)
        scaled = self.reformatter.reformat(
            frame, width, height, "rgb24", interpolation=_LIKE_DECORD, **self.options
        )
        pixels = np.rot90(scaled.to_ndarray(), k=turns)  # counter-clockwise, (H, W, 3)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _index_packets(path: Path) -> _PacketIndex:
    with _open_video(path) as (container, stream):
        packets = [
            _PacketInfo(packet.pts, packet.is_keyframe, not packet.is_discard)
            for packet in _packets(container, stream)
        ]
        return _PacketIndex(packets, reordered=bool(stream.codec_context.has_b_frames))


def _read_by_time(
    path: Path, index: _PacketIndex, times: list[int], to_pixels: _Scaler
) -> dict[int, np.ndarray]:
    """Decode the frames shown at these times; one that does not come out is left out."""
    wanted = set(times)
    found: dict[int, np.ndarray] = {}
    with _open_video(path) as (container, stream):
        codec = stream.codec_context
        needed = _needed_packets(index.packets, wanted)
        for position, packet in enumerate(_packets(container, stream)):
            if position not in needed:
                continue
            codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            decoded = list(_decode(codec, packet))
            if position + 1 not in needed:  # the end of a group: take what is held back
                decoded.extend(_decode(codec, None))
                codec.flush_buffers()
            for frame in decoded:
                if frame.pts in wanted and frame.pts not in found:
                    found[frame.pts] = to_pixels(frame)
            if len(found) == len(wanted):
                break
    return found


def _needed_packets(packets: list[_PacketInfo], wanted: set[int]) -> set[int]:
    """Positions from the start of each wanted frame's group of pictures to that frame.

    A frame shown before the key frame that it follows in the file may refer to the group before.
    """
    needed: set[int] = set()
    starts: list[tuple[int, int]] = []  # position and time of the key frames so far
    for position, packet in enumerate(packets):
        if packet.time is None:
            continue
        if packet.starts_group:
            starts.append((position, packet.time))
        if packet.time in wanted:
            own = next((start for start, time in reversed(starts) if time <= packet.time), 0)
            needed.update(range(own, position + 1))
    return needed


def _read_in_order(
    path: Path, wanted: np.ndarray, to_pixels: _Scaler
) -> tuple[dict[int, np.ndarray], int]:
    """Decode everything: the wanted frames that exist, and how many frames there are."""
    positions = set(wanted.tolist())
    found: dict[int, np.ndarray] = {}
    num_decoded = 0
    with _open_video(path) as (container, stream):
        for packet in chain(_packets(container, stream), [None]):
            for frame in _decode(stream.codec_context, packet):
                if num_decoded in positions:
                    found[num_decoded] = to_pixels(frame)
                num_decoded += 1
    return found, num_decoded


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the file's main video stream for decoding in one thread."""
    import av
    from av.video.stream import VideoStream

    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.best("video")
            if not isinstance(stream, VideoStream) or stream.codec_context is None:
                raise VideoReadError("PyAV: no video stream that can be decoded")
            stream.codec_context.thread_count = 1
            yield container, stream
    except av.error.FFmpegError as error:
        raise VideoReadError(f"PyAV: {error.strerror}") from error


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The stream's packets in file order; a file cut short just ends early."""
    import av

    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except av.error.FFmpegError:
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def _decode(codec: VideoCodecContext, packet: Packet | None) -> Iterator[Any]:
    """The frames that come out after this packet (None: those still held back); none if broken."""
    import av

    try:
        frames = codec.decode(packet)
    except av.error.FFmpegError:
        return
    yield from frames
