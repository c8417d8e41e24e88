"""Formats of files: those that hold videos, and names of others by their first bytes.

FFmpeg reads playlists as well (HLS, DASH, ffconcat, SDP, patterns of pictures), which lead it to
other files and to the network. So files are opened with these demuxers only, which look at nothing
but the file itself.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from src.datasets.decoding.contract import Video

FFMPEG_OPTIONS = {
    "format_whitelist": (
        "mov,mp4,matroska,webm,avi,flv,mpegts,mpeg,mpegvideo,asf,ogg,mxf,gif,rm,nut,ivf,dv,wtv,gxf,"
        "m4v,h261,h263,h264,hevc,vc1,vc1test,obu,av1,mjpeg,mjpeg_2000,dirac,cavsvideo,evc,vvc,nsv,"
        "yuv4mpegpipe,apng,mp3,flac,wav,aac,aiff,ac3"  # the last ones to say that it is sound
    ),
    "protocol_whitelist": "file",
}
"""Options of opening a file with FFmpeg's libraries."""

_HEAD_BYTES = 1024
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "a picture (JPEG)"),
    (0, b"\x89PNG\r\n\x1a\n", "a picture (PNG)"),
    (0, b"BM", "a picture (BMP)"),
    (8, b"WEBP", "a picture (WebP)"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"\x1f\x8b", "compressed data (gzip)"),
    (0, b"BZh", "compressed data (bzip2)"),
    (0, b"\xfd7zXZ\x00", "compressed data (xz)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed data (Zstandard)"),
    (257, b"ustar", "a tar archive"),
    (0, b"ID3", "sound (MP3)"),
    (0, b"fLaC", "sound (FLAC)"),
    (8, b"WAVE", "sound (WAV)"),
    (0, b"%PDF", "a PDF"),
    (0, b"#EXTM3U", "a playlist (HLS), which names other files"),
    (0, b"ffconcat version", "a playlist (ffconcat), which names other files"),
    (0, b"version https://git-lfs", "a git LFS pointer; fetch the file itself with `git lfs pull`"),
    (0, b"/annex/objects", "a git-annex pointer; fetch the file itself with `git annex get`"),
)
_TEXTS = (
    (re.compile(rb"<(!doctype html|html)", re.IGNORECASE), "a web page"),
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
    """Whether a file begins as common ones with a video do: no library takes it for a playlist.

    What FFmpeg takes for a video need not be one to the older version that another library brings.
    """
    return _OF_VIDEOS.match(_head(video)) is not None


def described_content(video: Video) -> str:
    """Noun for what a file holds, by its first bytes; "data" where these say nothing."""
    head = _head(video)
    if not head:
        return "nothing"
    for start, signature, noun in _SIGNATURES:
        if head.startswith(signature, start):
            return noun
    is_text = not re.search(rb"[\x00-\x08\x0e-\x1a\x7f]", head)
    nouns = (noun for pattern, noun in _TEXTS if is_text and pattern.search(head))
    return next(nouns, "a text" if is_text else "data")


def _head(video: Video) -> bytes:
    if isinstance(video, bytes):
        return video[:_HEAD_BYTES]
    try:
        return _first_bytes(video)
    except OSError:
        return b"\0"


def _first_bytes(path: Path) -> bytes:
    if not os.path.isfile(path):  # a pipe would be waited for
        return b"\0"
    with open(path, "rb") as file:
        return file.read(_HEAD_BYTES)
