"""Opening a video file with PyAV: the one place where FFmpeg's libraries are given a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from alpro.datasets.decoding.base import Video, VideoReadError
from alpro.datasets.decoding.formats import FFMPEG_OPTIONS, described_content

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_CODECS_OF_PICTURES = frozenset(
    {"mjpeg", "png", "bmp", "webp", "tiff", "jpeg2000", "jpegxl", "gif"}
)


class OpenVideo(NamedTuple):
    """A file's main video stream, to be decoded in one thread."""

    container: InputContainer
    stream: VideoStream


@contextmanager
def open_video(video: Video) -> Iterator[OpenVideo]:
    """Open a video file.

    Raises:
        VideoReadError: there is no video in it.
        av.error.FFmpegError: it cannot be read; also what the body of the block raises.
    """
    with _container(video) as container:
        stream = _main_stream(container)
        if _is_single_picture(video, container, stream):
            raise VideoReadError(_ONLY_SOUND.format(" and a cover picture"))
        stream.codec_context.thread_count = 1
        yield OpenVideo(container, stream)


def _container(video: Video) -> InputContainer:
    import av

    # A complete path, since what stands before a colon would be taken for a protocol.
    source = BytesIO(video) if isinstance(video, bytes) else os.path.abspath(video)
    try:
        return av.open(source, "r", metadata_errors="ignore", container_options=FFMPEG_OPTIONS)
    except (av.error.InvalidDataError, av.error.ArgumentError) as error:
        noun = described_content(video)
        is_refused = isinstance(error, av.error.ArgumentError)  # a demuxer that is not listed
        if noun == "data":
            raise VideoReadError(
                "of a format that holds no video" if is_refused else str(error.strerror)
            ) from error
        raise VideoReadError(f"no video: the file holds {noun}") from error


def _main_stream(container: InputContainer) -> VideoStream:
    """The stream that FFmpeg takes for the best one, unless it is a cover picture."""
    from av.stream import Disposition
    from av.video.stream import VideoStream

    best = container.streams.best("video")
    candidates = [best, *container.streams.video]
    covers = [one for one in candidates if one and one.disposition & Disposition.attached_pic]
    for stream in candidates:
        if isinstance(stream, VideoStream) and stream.codec_context and stream not in covers:
            return stream
    if container.streams.audio:
        raise VideoReadError(_ONLY_SOUND.format(" and a cover picture" if covers else ""))
    raise VideoReadError("no video stream that can be decoded")


def _is_single_picture(video: Video, container: InputContainer, stream: VideoStream) -> bool:
    """Return whether a stream is the cover of a file of sound that does not say so."""
    is_candidate = container.streams.audio and stream.frames <= 1
    if not is_candidate or stream.codec_context.name not in _CODECS_OF_PICTURES:
        return False
    with _container(video) as again:  # the packets of this one are its user's
        packets = (packet for packet in again.demux(again.streams[stream.index]) if packet.size)
        return len(list(islice(packets, 2))) < 2


_ONLY_SOUND = "no video: the file holds only sound{}"
