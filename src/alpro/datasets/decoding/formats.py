"""Formats of files that hold videos, and what stands in their place.

FFmpeg reads playlists as well (HLS, DASH, ffconcat, SDP, patterns of pictures), which lead it to
other files and to the network. So files are opened with these demuxers only, which look at nothing
but the file itself.
"""

from __future__ import annotations

import os
import re

from alpro.datasets.decoding.base import Video, VideoReadError
from alpro.file_kinds import HEAD_BYTES, kind_of_content

FFMPEG_OPTIONS = {
    "format_whitelist": (
        "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,gif,rm,nut,ivf,dv,wtv,gxf,"
        "m4v,h261,h263,h264,hevc,vc1,vc1test,obu,av1,mjpeg,mjpeg_2000,dirac,cavsvideo,evc,vvc,nsv,"
        "yuv4mpegpipe,apng,mp3,flac,wav,aac,aiff,ac3"  # the last ones to say that it is sound
    ),
    "protocol_whitelist": "file",
}
"""Options of opening a file with FFmpeg's libraries."""

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
    """Return whether a file begins as common videos do: no library takes it for a playlist.

    What FFmpeg takes for a video need not be one to the older version that another library brings.
    """
    return _OF_VIDEOS.match(_head(video)) is not None


def require_video_signature(video: Video, *, library: str) -> None:
    """Refuse a file that does not begin as one with a video, for a library that would follow it.

    Raises:
        VideoReadError: naming the library and what the file holds.
    """
    if not has_video_signature(video):
        raise VideoReadError(f"{library}: no video: the file holds {described_content(video)}")


def described_content(video: Video) -> str:
    """Return a noun for what a file holds, by its first bytes; "data" where these say nothing."""
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
    if not os.path.isfile(video):  # a pipe would be waited for
        return b"\0"
    try:
        with open(video, "rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b"\0"
