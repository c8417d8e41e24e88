from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.decoding import VideoReadError, make_decoder
from alpro.datasets.decoding.image_files import frames_in
from alpro.datasets.quarantine import Quarantine
from alpro.datasets.storage import (
    ImageFolder,
    VideoFolder,
    hint_of_missing,
    open_videos,
    storage_kind,
)
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import EvaluationVideos, FrameReader, TrainingVideos
from alpro.errors import InputError
from tests.datasets.clips import indices_of, write_clip, write_image
from tests.datasets.test_storage_lmdb import write_as_clipbert

Image = pytest.importorskip("PIL.Image")


def _reader(root: Path, *, sampling: str = "uniform", num_frames: int = 4) -> FrameReader:
    return FrameReader(
        open_videos(root), make_decoder("pyav"), num_frames, sampling, PixelPreprocessing(size=16)
    )


@pytest.mark.parametrize(
    "pattern", ["frame_{:06}.jpg", "{}.jpg", "{:05}.png", "v_{:03}.webp", "a/b_{}.JPEG"]
)
def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path, pattern: str) -> None:
    for number in range(12):
        write_image(tmp_path / "v" / pattern.format(number), number)
    (tmp_path / "v/info.txt").write_text("8 frames a second")
    videos, video_id = open_videos(tmp_path), str(Path("v", pattern).parent)
    assert isinstance(videos, ImageFolder)
    assert videos.video_ids() == [video_id]
    assert videos.missing([video_id, f"{video_id}.mp4", "w", "../v", "v\0"]) == ["w", "../v", "v\0"]
    assert indices_of(_reader(tmp_path).read(video_id, rng=None)[0]) == [0, 3, 6, 9]
    assert indices_of(_reader(tmp_path).read(f"{video_id}.mp4", rng=None)[0]) == [0, 3, 6, 9]


def test_clips_and_strategies_are_those_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos/v.mp4", num_frames=16)
    for number in range(16):
        write_image(tmp_path / "frames/v" / f"{number}.png", number)
    for sampling in ("uniform", "nlvl_rand", "rand", "headtail", "segment", "end"):
        of_video, of_frames = (
            replace(_reader(tmp_path / name, sampling=sampling), num_clips=2).read(
                "v", rng=np.random.default_rng(3)
            )
            for name in ("videos", "frames")
        )
        assert of_frames.shape == of_video.shape == (2, 4, 3, 16, 16)
        for clip, expected in zip(of_frames, of_video, strict=True):
            assert indices_of(clip) == indices_of(expected), sampling


def test_frames_are_squashed_and_have_one_size(tmp_path: Path) -> None:
    half = np.zeros((30, 40, 3), np.uint8)
    half[:, 20:] = 255
    (tmp_path / "v").mkdir()
    for number in range(4):
        larger = half.repeat(5, axis=0)[:: 2 if number == 3 else 1]
        Image.fromarray(larger).save(tmp_path / f"v/{number}.png")
    frames = _reader(tmp_path, num_frames=2, sampling="start").read("v", rng=None)[0]
    assert frames.shape == (2, 3, 16, 16)
    assert (frames[..., :7] == 0).all()
    assert (frames[..., 9:] == 255).all()
    with pytest.raises(VideoReadError, match=r"different sizes: 0\.png 40 x 150, 3\.png 40 x 75"):
        _reader(tmp_path, num_frames=4).read("v", rng=None)


def test_annotations_may_state_the_number_of_frames(tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / "v/1.a" / f"1.a_{number:03}.jpg", number)
    reader = _reader(tmp_path, num_frames=3, sampling="linspace")
    assert isinstance(reader.videos, ImageFolder)
    assert indices_of(reader.read("v/1.a", rng=None)[0]) == [0, 3, 7]
    for num_frames, indices in ((5, [0, 2, 4]), (8, [0, 3, 7])):
        reader.videos.frame_counts = {"v/1.a": num_frames}
        assert indices_of(reader.read("v/1.a", rng=None)[0]) == indices
    (tmp_path / "v/1.a/1.a_003.jpg").unlink()
    with pytest.raises(VideoReadError, match=r"^7 of 8 frames, .*num_frame.*; 1\.a_003\.jpg is m"):
        reader.read("v/1.a", rng=None)
    (tmp_path / "v/1.a/1.a_000.jpg").rename(tmp_path / "v/1.a/1.a_003.jpg")
    with pytest.raises(VideoReadError, match=r"^7 of 8 frames, .* 1\.a_000\.jpg is missing"):
        reader.read("v/1.a", rng=None)
    (tmp_path / "v/1.a/1.a_004.jpg").rename(tmp_path / "v/1.a/1.a_008.jpg")
    with pytest.raises(VideoReadError, match=r"^7 of 8 frames, .* 1\.a_004\.jpg is missing"):
        reader.read("v/1.a", rng=None)


def test_an_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    write_image(tmp_path / "images/a.jpg", 3)
    write_image(tmp_path / "images/part/b.PNG", 5)
    videos = open_videos(tmp_path / "images")
    assert videos.missing(["a", "a.jpg", "part/b", "part/b.PNG", "b", "a.png", "part/a"]) == [
        *("b", "a.png", "part/a")
    ]
    reader = _reader(tmp_path / "images", sampling="rand", num_frames=3)
    rng = np.random.default_rng(0)
    assert indices_of(reader.read("a", rng=rng)[0]) == [3, 3, 3]
    assert indices_of(reader.read("part/b.PNG", rng=rng)[0]) == [5, 5, 5]
    sample = TrainingVideos([CaptionRow("x", "a.jpg")], reader, seed=0)[0, 0]
    assert indices_of(sample.frames[0]) == [3, 3, 3]
    clips = EvaluationVideos(["part/b"], reader, num_clips=2, seed=0)[0].frames
    assert clips is not None
    assert [indices_of(clip) for clip in clips] == [[5, 5, 5]] * 2


def test_images_in_an_lmdb_are_known_by_their_bytes(tmp_path: Path) -> None:
    content = {
        name: write_image(tmp_path / name, int(name[0])).read_bytes()
        for name in ("2.jpg", "3.png", "4.webp")
    }
    write_as_clipbert(tmp_path / "db", content)
    reader = _reader(tmp_path / "db", num_frames=2)
    read = [indices_of(reader.read(name, rng=None)[0]) for name in content]
    assert read == [[2, 2], [3, 3], [4, 4]]


def test_an_image_beside_videos_has_to_be_named_with_its_extension(tmp_path: Path) -> None:
    write_clip(tmp_path / "v.mp4")
    for name in ("v.jpg", "w.jpg", "part/x.webp"):
        write_image(tmp_path / name, 7)
    videos = open_videos(tmp_path)
    assert isinstance(videos, VideoFolder)
    assert videos.missing(["v", "v.jpg", "w", "w.jpg", "x", "x.webp"]) == ["w", "x"]
    assert videos.video_ids() == ["v"]
    reader = _reader(tmp_path, num_frames=2)
    assert indices_of(reader.read("v.jpg", rng=None)[0]) == [7, 7]
    assert indices_of(reader.read("x.webp", rng=None)[0]) == [7, 7]
    assert indices_of(reader.read("v", rng=None)[0]) == [0, 8]


def test_frames_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / "v" / f"{number}.jpg", number)
    (tmp_path / "v/1.jpg").write_bytes(b"<html>")
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    reader = _reader(tmp_path, num_frames=3)
    with pytest.raises(VideoReadError, match=r"^1\.jpg: Pillow: cannot identify a web page"):
        reader.read("v", rng=None)
    for video_id in ("empty", "texts"):
        assert reader.videos.missing([video_id]) == []
        with pytest.raises(VideoReadError, match=r"no frames: no file in the folder ends in \.jpg"):
            reader.read(video_id, rng=None)
    with pytest.raises(VideoReadError, match="no file for it in "):
        reader.read("absent", rng=None)
    with pytest.raises(VideoReadError, match="cannot be listed: No such file"):
        frames_in(tmp_path / "absent")
    samples = TrainingVideos([CaptionRow("x", "v")] * 2, reader, seed=0, max_attempts=2)
    with pytest.raises(InputError, match=r"2 videos drawn .*v: 1\.jpg: Pillow"):
        samples[0, 0]


def test_frames_are_read_within_limits_and_cut_off_ones_are_quarantined(tmp_path: Path) -> None:
    for number in range(2):
        write_image(tmp_path / "v" / f"{number}.png", number)
    (tmp_path / "w").mkdir()
    Image.new("1", (9000, 9000)).save(tmp_path / "w/0.png")  # 240 MB as RGB
    reader = FrameReader(
        open_videos(tmp_path),
        make_decoder("pyav", megabytes=100),
        num_frames=2,
        sampling="uniform",
        preprocessing=PixelPreprocessing(size=16),
        quarantine=Quarantine(None),
    )
    assert indices_of(reader.read("v", rng=None)[0]) == [0, 1]
    with pytest.raises(VideoReadError, match="^cut off: "):
        reader.read("w", rng=None)
    with pytest.raises(VideoReadError, match="^quarantined: cut off: "):
        reader.read("w", rng=None)


def test_names_that_come_close_are_hinted_at(tmp_path: Path) -> None:
    write_image(tmp_path / "0007/1.jpg", 1)
    write_image(tmp_path / "b.jpg", 1)
    videos = open_videos(tmp_path)
    assert videos.described == f"the folder of images {tmp_path}"
    assert videos.video_ids() == ["0007", "b"]
    assert "0007 for id 7; have the ids lost leading zeros" in str(hint_of_missing(["7"], videos))
    assert "has b for id B; do capitals differ" in str(hint_of_missing(["B"], videos))
    assert pickle.loads(pickle.dumps(videos)).fetch("b") == tmp_path / "b.jpg"


def test_links_around_are_followed_once(tmp_path: Path) -> None:
    write_image(tmp_path / "v/1.jpg", 1)
    (tmp_path / "v/around").symlink_to(tmp_path)
    assert open_videos(tmp_path).video_ids() == ["v"]


def test_a_missing_pillow_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_image(tmp_path / "v.jpg", 1)
    for module in ("storage.folder", "decoding.image_files"):
        monkeypatch.setattr(f"alpro.datasets.{module}.has_package", lambda _: False)
    with pytest.raises(InputError, match=f"{tmp_path} holds images, .*`pip install pillow`"):
        open_videos(tmp_path)
    with pytest.raises(VideoReadError, match="images need Pillow"):
        make_decoder("pyav").read(path, np.arange, preprocessing=PixelPreprocessing(size=8))


def test_previews_of_videos_without_a_known_extension_are_not_the_media(tmp_path: Path) -> None:
    for name in ("a", "a.jpg", "b.vid", "b.jpg"):
        (tmp_path / "previews" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "previews" / name).touch()
    videos = open_videos(tmp_path / "previews")
    assert [videos.fetch(name) for name in ("a", "b")] == [
        tmp_path / "previews" / name for name in ("a", "b.vid")
    ]
    # A picture beside the folder of a video's frames, and other files, replace nothing.
    frames = tmp_path / "frames"
    for name in ("a/1.jpg", "a.jpg", "LICENSE", "a.txt"):
        (frames / name).parent.mkdir(parents=True, exist_ok=True)
        (frames / name).touch()
    assert open_videos(frames).fetch("a") == frames / "a"
    assert storage_kind(frames) == "images"
