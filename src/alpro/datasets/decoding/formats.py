"""Container formats of videos, and the recognition of other files.

FFmpeg also reads playlists (HLS, DASH, ffconcat, SDP, patterns of pictures), which lead it to other
files and to the network. So files are opened with demuxers only that read just the file itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from alpro.datasets.decoding.base import Video, VideoReadError
from alpro.file_kinds import HEAD_BYTES, kind_of_content

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Options for opening a file with FFmpeg's libraries.
FFMPEG_OPTIONS = {
    "format_whitelist": (
        "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,gif,rm,nut,ivf,dv,wtv,gxf,"
        "m4v,h261,h263,h264,hevc,vc1,vc1test,obu,av1,mjpeg,mjpeg_2000,dirac,cavsvideo,evc,vvc,nsv,"
        "yuv4mpegpipe,apng,mp3,flac,wav,aac,aiff,ac3"  # the last ones to say that it is sound
    ),
    "protocol_whitelist": "file",
}
_TEXTS = (
    (re.compile(rb"<MPD"), "a playlist (DASH), which names other files"),
    (re.compile(rb"^c=IN IP", re.MULTILINE), "a description of a stream (SDP)"),
)
_OF_VIDEOS = re.compile(
    rb".{4}(ftyp|moov|mdat|free|skip|wide|pnot|styp|moof|uuid)|\x1aE\xdf\xa3|RIFF.{4}AVI |FLV\x01"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|OggS|GIF8[79]a|\x00\x00\x01[\xb0-\xbf]|\.RMF"
    rb"|.{0,512}\x06\x0e\x2b\x34|G.{187}G.{187}G|.{4}G.{191}G.{191}G",
    re.DOTALL,
)


def has_video_signature(video: Video) -> bool:
    """Return whether a file begins as common videos do, so that no library takes it for a playlist.

    The older FFmpeg of another library may disagree with PyAV's about a file without signature.
    """
    return _OF_VIDEOS.match(_head(video)) is not None


def require_video_signature(video: Video, *, library: str) -> None:
    """Raise VideoReadError for a file without a video's signature, naming library and content."""
    if not has_video_signature(video):
        raise VideoReadError(f"{library}: no video: the file holds {described_content(video)}")


def described_content(video: Video) -> str:
    """Return a noun for the content of a file, by its first bytes; "data" if it is unknown."""
    head = _head(video)
    if not head:
        return "nothing"
    if kind := kind_of_content(head):
        return kind.advice()
    is_text = not re.search(rb"[\x00-\x08\x0e-\x1a\x7f]", head)
    nouns = (noun for pattern, noun in _TEXTS if is_text and pattern.search(head))
    return next(nouns, "a text" if is_text else "data")


def _head(video: Video) -> bytes:
    if isinstance(video, bytes):
        return video[:HEAD_BYTES]
    if not os.path.isfile(video):  # reading a pipe would block
        return b"\0"
    try:
        with open(video, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b"\0"


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

    # An absolute path, since FFmpeg would take text before a colon for a protocol.
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
    from av.stream import Disposition
    from av.video.stream import VideoStream

    # Take FFmpeg's best stream, or else the first, but no cover picture.
    candidates = [container.streams.best("video"), *container.streams.video]
    covers = [each for each in candidates if each and each.disposition & Disposition.attached_pic]
    for stream in candidates:
        if isinstance(stream, VideoStream) and stream.codec_context and stream not in covers:
            return stream
    if container.streams.audio:
        raise VideoReadError(_ONLY_SOUND.format(" and a cover picture" if covers else ""))
    raise VideoReadError("no video stream that can be decoded")


def _is_single_picture(video: Video, container: InputContainer, stream: VideoStream) -> bool:
    """Return whether a stream is the undeclared cover picture of an audio file."""
    is_candidate = container.streams.audio and stream.frames <= 1
    if not is_candidate or stream.codec_context.name not in _CODECS_OF_PICTURES:
        return False
    with _container(video) as again:  # packets of the first one are consumed only once
        packets = (packet for packet in again.demux(again.streams[stream.index]) if packet.size)
        return len(list(islice(packets, 2))) < 2


_ONLY_SOUND = "no video: the file holds only sound{}"
