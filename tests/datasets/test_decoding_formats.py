"""Files that are no videos, or lead to others; all have names of videos."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from alpro.commands.check_data.ffmpeg_stream import describe
from alpro.commands.transcode.encoding import prepare_video
from alpro.commands.transcode.settings import Preparation
from alpro.datasets.decoding import Decoder, VideoReadError
from alpro.datasets.decoding.formats import described_content, has_video_signature
from alpro.datasets.decoding.other_decoders import DecordDecoder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from tests.datasets.clips import SMALL, write_clip
from tests.datasets.decoders import installed_decoder

CONTENTS = {
    "an HLS playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
    "an ffconcat playlist": "ffconcat version 1.0\nfile secret.mp4\n",
    "one that allows any path": "ffconcat version 1.0\noption safe 0\nfile {secret}\n",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "DASH": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    "<Period><AdaptationSet><Representation><BaseURL>{secret}</BaseURL></Representation>"
    "</AdaptationSet></Period></MPD>",
    "IMF": '<?xml version="1.0"?><CompositionPlaylist>{secret}</CompositionPlaylist>',
    "a reference of Windows Media": "[Reference]\nRef1={secret}\n",
    "a list of RealMedia": "file://{secret}\n",
}


@pytest.fixture(params=["pyav", "decord", "torchcodec", "decord alone"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    if request.param == "decord alone":  # as where PyAV is not installed
        pytest.importorskip("decord")
        return DecordDecoder()
    return installed_decoder(request.param)


def _first(_num_video_frames: int) -> np.ndarray:
    return np.array([0])


def _refused(decoder: Decoder, video: Path) -> str:
    """What a decoder and the checker say of a file, read as it is and as bytes."""
    reasons = set()
    for source in (video, video.read_bytes()):
        with pytest.raises(VideoReadError) as refused:
            decoder.read(source, _first, preprocessing=SMALL)
        reasons.add(str(refused.value))
        with pytest.raises(VideoReadError, match="no video"):
            describe(source, full=False)
    assert len(reasons) == 1
    return reasons.pop()


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ts"])
def test_playlists_are_not_followed(tmp_path: Path, decoder: Decoder, kind: str, name: str) -> None:
    secret = write_clip(tmp_path / "secret.mp4")
    (tmp_path / name).write_text(CONTENTS[kind].format(secret=secret))
    assert "no video" in _refused(decoder, tmp_path / name)


def test_a_playlist_within_a_video_is_not_followed(tmp_path: Path, decoder: Decoder) -> None:
    """FFmpeg's version decides what a file is that looks like two things."""
    stream = write_clip(tmp_path / "clip.ts", codec="mpeg2video").read_bytes()
    path = tmp_path / "both.ts"
    path.write_bytes(b"#EXTM3U\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n".ljust(188) + stream)
    try:
        frames = decoder.read(path, _first, preprocessing=SMALL)
    except VideoReadError:
        return
    assert frames.mean() < 3, "the first frame of the stream itself"


def test_patterns_of_pictures_are_not_expanded(tmp_path: Path, decoder: Decoder) -> None:
    image = pytest.importorskip("PIL.Image").new("RGB", (64, 64), "red")
    for name in ("frame%03d.mp4", "frame001.mp4", "frame002.mp4"):
        image.save(tmp_path / name, "JPEG")
    with pytest.raises(VideoReadError, match=r"a picture \(JPEG\)"):
        decoder.read(tmp_path / "frame%03d.mp4", _first, preprocessing=PixelPreprocessing(size=64))


def test_names_are_no_protocols(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:other.mp4", "subfile,,start,0,end,0,,:other.mp4", "http:a.mp4"):
        write_clip(tmp_path / "clip.mp4").rename(name)
        frames = decoder.read(Path(name), _first, preprocessing=SMALL)
        assert frames.mean() < 3


def write_sound(
    path: Path, *, codec: str, cover: str | None, attached: bool, num_pictures: int = 1
) -> None:
    """Half a second of sound, perhaps with pictures."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=44_100)
        assert isinstance(sound, av.AudioStream)
        if cover is not None:
            picture = container.add_stream(cover, rate=25)
            assert isinstance(picture, av.VideoStream)
            picture.width = picture.height = 64
            picture.pix_fmt = "rgb24" if cover == "png" else "yuvj420p"
            if attached:
                picture.disposition = Disposition.attached_pic
            for number in range(num_pictures):
                frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        resampler = av.AudioResampler(sound.format.name, "stereo", 44_100)
        for number in range(20):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.int16), "s16", "stereo")
            silence.sample_rate, silence.pts = 44_100, number * 1024
            for part in resampler.resample(silence):
                container.mux(sound.encode(part))
        container.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "cover", "attached"),
    [
        ("cover.mp4", "aac", "mjpeg", True),
        ("png.mp4", "aac", "png", True),
        ("track.mp4", "aac", "mjpeg", False),
        ("cover.mkv", "aac", "mjpeg", True),
        ("track.mkv", "aac", "mjpeg", False),
        ("cover.mp3", "mp3", "mjpeg", True),
        ("cover.flac", "flac", "png", True),
        ("alone.mp4", "aac", None, False),
        ("alone.mkv", "aac", None, False),
        ("alone.mp3", "mp3", None, False),
        ("alone.wav", "pcm_s16le", None, False),
    ],
)
@pytest.mark.parametrize("decoder", ["pyav", "decord", "torchcodec"], indirect=True)
def test_sound_with_a_cover_is_no_video(  # noqa: PLR0913
    tmp_path: Path, decoder: Decoder, name: str, codec: str, cover: str | None, attached: bool
) -> None:
    write_sound(tmp_path / name, codec=codec, cover=cover, attached=attached)
    ending = " and a cover picture" if cover else ""
    assert _refused(decoder, tmp_path / name) == f"no video: the file holds only sound{ending}"
    with pytest.raises(VideoReadError, match="only sound"):
        prepare_video(tmp_path / name, tmp_path / "to.mp4", preparation=Preparation())


@pytest.mark.parametrize(("name", "codec"), [("film.avi", "mp3"), ("film.mkv", "aac")])
def test_a_video_of_pictures_with_sound_stays_one(tmp_path: Path, name: str, codec: str) -> None:
    write_sound(tmp_path / name, codec=codec, cover="mjpeg", attached=False, num_pictures=3)
    assert describe(tmp_path / name, full=False)["num_frames"] == 3


@pytest.mark.parametrize(
    ("content", "noun"),
    [
        (b"", "nothing"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture (JPEG)"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
        (b"\x1f\x8b\x08\0", "a gzip file; unpack it"),
        (b"<!DOCTYPE HTML><p>404", "a web page"),
        (b"\xef\xbb\xbf\n<html>", "a web page"),
        (b'{"caption": "a dog"}\n', "a text"),
        ("ein Hündchen".encode(), "a text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
        (b"\x00\x01\x02\x03" * 20, "data"),
    ],
)
def test_the_content_of_a_file_is_named(tmp_path: Path, content: bytes, noun: str) -> None:
    assert described_content(content).startswith(noun)
    (tmp_path / "a.mp4").write_bytes(content)
    assert described_content(tmp_path / "a.mp4").startswith(noun)
    assert not has_video_signature(content)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov", "a.flv", "a.ts", "a.mpg"])
def test_common_videos_are_known_by_their_first_bytes(tmp_path: Path, name: str) -> None:
    codec = "mpeg2video" if name in ("a.ts", "a.mpg") else "libx264"
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert has_video_signature(tmp_path / name)
