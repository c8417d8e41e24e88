from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.decoding import Decoder, FrameSelector, Video, VideoReadError
from alpro.datasets.decoding.other_decoders import DecordDecoder
from alpro.datasets.decoding.pyav_decoder import PyAVDecoder
from alpro.datasets.frame_sampling import frame_indices
from alpro.datasets.storage import VideoFolder
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import (
    EvaluationVideo,
    EvaluationVideos,
    FrameAugmentation,
    FrameReader,
    TrainingVideos,
    UnreadableVideo,
    collate_videos,
)
from alpro.errors import InputError
from tests.datasets.clips import indices_of, write_clip

_NUM_VIDEOS = 6


class StubDecoder:
    """Reads a text file: frame ``i`` of the video is filled with ``i``; "broken" is unreadable."""

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        assert isinstance(video, Path)
        text = video.read_text()
        if text == "broken":
            raise VideoReadError("broken")
        indices = select(int(text)).astype(np.uint8)
        size = preprocessing.size
        return np.broadcast_to(indices[:, None, None, None], (len(indices), 3, size, size))


class CountingDecoder(StubDecoder):
    """Counts how often it is asked for a file's frames."""

    def __init__(self) -> None:
        self.num_reads = 0

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        self.num_reads += 1
        return super().read(video, select, preprocessing=preprocessing)


class AskingTwiceDecoder(StubDecoder):
    """Chooses frames, finds its count wrong, and chooses again."""

    def read(
        self, video: Video, select: FrameSelector, *, preprocessing: PixelPreprocessing
    ) -> np.ndarray:
        super().read(video, select, preprocessing=preprocessing)
        return super().read(video, select, preprocessing=preprocessing)


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    for index in range(_NUM_VIDEOS):
        (tmp_path / f"v{index}.mp4").write_text("100")
    return VideoFolder(tmp_path)


def _training_videos(
    folder: VideoFolder,
    *,
    seed: int = 3,
    sampling: str = "rand",
    max_attempts: int = 5,
    augment: FrameAugmentation | None = None,
    **clips: Any,
) -> TrainingVideos[CaptionRow]:
    rows = [CaptionRow(f"caption {index}", f"v{index}") for index in range(_NUM_VIDEOS)]
    reader = FrameReader(
        folder,
        StubDecoder(),
        num_frames=4,
        sampling=sampling,
        preprocessing=PixelPreprocessing(size=8),
        **clips,
    )
    return TrainingVideos(rows, reader, seed=seed, augment=augment, max_attempts=max_attempts)


def _evaluation_videos(
    folder: VideoFolder,
    *,
    decoder: Decoder | None = None,
    sampling: str = "rand",
    num_clips: int = 1,
    frame_order: str = "original",
) -> EvaluationVideos:
    reader = FrameReader(
        folder, decoder or StubDecoder(), 4, sampling, preprocessing=PixelPreprocessing(size=8)
    )
    ids = ["v0", "v1", "absent", "v2"]
    return EvaluationVideos(ids, reader, num_clips=num_clips, frame_order=frame_order, seed=3)


def _clips(video: EvaluationVideo) -> list[list[int]]:
    """Times of the frames of each clip."""
    assert video.frames is not None
    return [_times(clip) for clip in video.frames]


def _times(frames: np.ndarray) -> list[int]:
    return frames[..., 0, 0, 0].ravel().tolist()


def test_frames_do_not_depend_on_how_often_they_were_chosen(folder: VideoFolder) -> None:
    decoders = (StubDecoder(), AskingTwiceDecoder())
    readers = [
        FrameReader(folder, decoder, 4, "rand", preprocessing=PixelPreprocessing(size=8))
        for decoder in decoders
    ]
    plain, other = (_times(reader.read("v0", rng=np.random.default_rng(1))) for reader in readers)
    assert plain == other


def test_a_sample_is_a_function_of_seed_epoch_and_index(folder: VideoFolder) -> None:
    one, same, other = (_training_videos(folder, seed=seed) for seed in (3, 3, 4))
    sample = one[7, 2]
    assert (sample.item.caption, sample.item.video_id, sample.unreadable) == ("caption 2", "v2", ())
    assert sample.frames.shape == (1, 4, 3, 8, 8)
    _ = one[0, 0]
    assert _times(one[7, 2].frames) == _times(same[7, 2].frames) == _times(sample.frames)
    different = [one[8, 2], one[7, 3], other[7, 2]]
    assert all(_times(d.frames) != _times(sample.frames) for d in different)


def test_an_unreadable_video_is_replaced_and_reported(folder: VideoFolder) -> None:
    (folder.root / "v1.mp4").write_text("broken")
    (folder.root / "v2.mp4").unlink()
    training = _training_videos(folder)
    assert [v.video_id for v in training[0, 2].unreadable][:1] == ["v2"]
    replacements = set()
    for epoch in range(40):
        sample = training[epoch, 1]
        assert sample.unreadable[0] == UnreadableVideo("v1", "broken")
        assert sample.item.caption == f"caption {sample.item.video_id[1:]}"
        assert training[epoch, 1].item == sample.item
        replacements.add(sample.item.video_id)
    assert replacements == {"v0", "v3", "v4", "v5"}


def test_a_folder_of_unreadable_videos_stops_the_run(folder: VideoFolder) -> None:
    for index in range(_NUM_VIDEOS):
        (folder.root / f"v{index}.mp4").write_text("broken")
    with pytest.raises(InputError, match="3 videos.*cannot be read.*v2: broken"):
        _ = _training_videos(folder, max_attempts=3)[0, 2]


def test_segment_sampling_is_random_in_training_and_centred_in_evaluation(
    folder: VideoFolder,
) -> None:
    training = _training_videos(folder, sampling="segment")
    assert _times(training[0, 0].frames) != _times(training[1, 0].frames)
    assert _clips(_evaluation_videos(folder, sampling="segment")[0]) == [[12, 37, 62, 87]]


def test_evaluation_replaces_rand_by_uniform_and_never_a_video(folder: VideoFolder) -> None:
    videos = _evaluation_videos(folder)
    assert _clips(videos[1]) == [[0, 25, 50, 75]]
    missing = videos[2]
    assert (missing.position, missing.video_id, missing.frames) == (2, "absent", None)
    assert missing.error is not None
    assert "no file" in missing.error
    randomly = _evaluation_videos(folder, sampling="headtail")
    assert _clips(randomly[0]) == _clips(randomly[0])
    assert _clips(randomly[0]) != _clips(randomly[1])


def test_frames_can_be_evaluated_out_of_order(folder: VideoFolder) -> None:
    assert _clips(_evaluation_videos(folder, frame_order="reversed")[0]) == [[75, 50, 25, 0]]
    shuffled = _evaluation_videos(folder, frame_order="shuffled")
    orders = {tuple(_clips(shuffled[position])[0]) for position in (0, 1, 3)}
    assert len(orders) > 1
    assert all(sorted(order) == [0, 25, 50, 75] for order in orders)


def test_clips_cover_a_video_one_after_the_other(folder: VideoFolder) -> None:
    halves = [[0, 12, 24, 36], [50, 62, 74, 86]]
    assert _clips(_evaluation_videos(folder, num_clips=2)[0]) == halves
    backwards = _evaluation_videos(folder, num_clips=2, frame_order="reversed")
    assert _clips(backwards[0]) == [clip[::-1] for clip in halves]
    shuffled = _clips(_evaluation_videos(folder, num_clips=2, frame_order="shuffled")[0])
    assert [sorted(clip) for clip in shuffled] == halves
    assert shuffled != halves


def test_a_video_is_decoded_once_for_all_its_clips(folder: VideoFolder) -> None:
    decoder = CountingDecoder()
    (folder.root / "v1.mp4").write_text("3")
    videos = _evaluation_videos(folder, decoder=decoder, num_clips=4)
    frames = videos[1].frames
    assert frames is not None
    assert frames.shape == (4, 4, 3, 8, 8)
    assert _clips(videos[1]) == [[0] * 4, [0] * 4, [1] * 4, [2] * 4]
    assert decoder.num_reads == 2  # of v1, twice


def test_the_first_clip_of_one_is_what_training_would_read(folder: VideoFolder) -> None:
    """One clip draws from the generator as a plain reading does."""
    videos = _evaluation_videos(folder, sampling="nlvl_rand")
    plain = videos.reader.read("v2", rng=np.random.default_rng([3, 3]))
    assert _clips(videos[3]) == [_times(plain)]


def _draw(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An augmentation that shows what it draws, and leaves the times in the first channel."""
    changed = frames.copy()
    changed[:, 1] = rng.integers(256)
    return changed


def test_several_training_clips_are_drawn_one_after_the_other(folder: VideoFolder) -> None:
    independent, parts = (
        _training_videos(folder, num_clips=2, independent_clips=whole) for whole in (True, False)
    )
    frames = independent[7, 2].frames
    assert frames.shape == (2, 4, 3, 8, 8)
    rng = np.random.default_rng([3, 7, 2, 0])  # the first attempt of (seed, epoch, index)
    wanted: dict[str, Any] = {"num_video_frames": 100, "num_frames": 4, "rng": rng}
    expected = [frame_indices("rand", **wanted).tolist() for _ in range(2)]
    assert [_times(clip) for clip in frames] == expected
    assert expected[0][-1] > expected[1][0]  # they overlap
    assert np.array_equal(frames, pickle.loads(pickle.dumps(independent))[7, 2].frames)
    assert all(
        max(_times(first)) < 50 <= min(_times(second))
        for first, second in (parts[epoch, 2].frames for epoch in range(5))
    )


def test_all_clips_of_a_video_are_augmented_alike(folder: VideoFolder) -> None:
    arguments: dict[str, Any] = {"num_clips": 3, "independent_clips": True}
    plain = _training_videos(folder, **arguments)[1, 1].frames
    frames = _training_videos(folder, augment=_draw, **arguments)[1, 1].frames
    assert frames.shape == plain.shape
    assert np.array_equal(frames[:, :, 0], plain[:, :, 0])
    assert len(np.unique(frames[:, :, 1])) == 1


def test_augmentation_draws_from_a_stream_of_its_own(folder: VideoFolder) -> None:
    plain, changed = _training_videos(folder), _training_videos(folder, augment=_draw)
    drawn = set()
    for key in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        frames = changed[key].frames
        assert _times(frames) == _times(plain[key].frames)
        assert np.array_equal(frames, pickle.loads(pickle.dumps(changed))[key].frames)
        drawn.add(int(frames[0, 0, 1, 0, 0]))
    assert len(drawn) > 2


def test_a_replaced_sample_is_augmented_as_the_sample_would_have_been(folder: VideoFolder) -> None:
    before = _training_videos(folder, augment=_draw)[5, 1]
    (folder.root / "v1.mp4").write_text("broken")
    after = _training_videos(folder, augment=_draw)[5, 1]
    assert after.item.video_id != before.item.video_id
    assert np.array_equal(after.frames[:, :, 1], before.frames[:, :, 1])


def test_chunks_of_videos_list_what_is_unreadable(folder: VideoFolder) -> None:
    videos = _evaluation_videos(folder)
    batch = collate_videos([videos[position] for position in range(4)]).to("cpu")
    assert batch.frames is not None
    assert batch.frames.shape == (3, 1, 4, 3, 8, 8)
    assert batch.positions == [0, 1, 3]
    assert [video.video_id for video in batch.unreadable] == ["absent"]
    nothing = collate_videos([videos[2]])
    assert nothing.frames is None
    assert nothing.to("cpu").positions == []


@pytest.mark.parametrize("decoder", [PyAVDecoder, DecordDecoder])
def test_real_annotation_files_are_read(
    tmp_path: Path, decoder: type[PyAVDecoder] | type[DecordDecoder]
) -> None:
    if decoder is DecordDecoder:
        pytest.importorskip("decord")
    write_clip(tmp_path / "clip.mp4", num_frames=16)
    reader = FrameReader(
        VideoFolder(tmp_path), decoder(), 4, "uniform", preprocessing=PixelPreprocessing(size=32)
    )
    for num_clips, expected in [
        (1, [[0, 4, 8, 12]]),
        (2, [[0, 2, 4, 6], [8, 10, 12, 14]]),
        (3, [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]]),
        (8, [[i, i, i + 1, i + 1] for i in range(0, 16, 2)]),
    ]:
        frames = EvaluationVideos(["clip"], reader, num_clips=num_clips, seed=0)[0].frames
        assert frames is not None
        assert frames.shape == (num_clips, 4, 3, 32, 32)
        assert [indices_of(clip) for clip in frames] == expected
    training = replace(reader, sampling="rand", num_clips=3, independent_clips=True)
    rng, in_turn = (np.random.default_rng(1) for _ in range(2))
    wanted: dict[str, Any] = {"num_video_frames": 16, "num_frames": 4, "rng": in_turn}
    drawn = [frame_indices("rand", **wanted).tolist() for _ in range(3)]
    assert [indices_of(clip) for clip in training.read("clip", rng=rng)] == drawn
