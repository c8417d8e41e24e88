from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from src.datasets.annotations import CaptionRow
from src.datasets.decoding import FrameSelector, PyAVDecoder, VideoReadError
from src.datasets.retrieval import (
    EvaluationVideos,
    RetrievalCollate,
    RetrievalTrainingSet,
    collate_videos,
)
from src.datasets.storage import VideoFolder
from src.datasets.tokenization import load_tokenizer
from src.datasets.unreadable import UnreadableVideo
from src.errors import InputError
from tests.datasets.clips import indices_of, write_clip

_NUM_VIDEOS = 6


class StubDecoder:
    """Reads a text file: frame ``i`` of the video is filled with ``i``; "broken" is unreadable."""

    def read(self, path: Path, select: FrameSelector, *, height: int, width: int) -> np.ndarray:
        text = path.read_text()
        if text == "broken":
            raise VideoReadError("broken")
        indices = select(int(text)).astype(np.uint8)
        return np.broadcast_to(indices[:, None, None, None], (len(indices), 3, height, width))


@pytest.fixture
def folder(tmp_path: Path) -> VideoFolder:
    for index in range(_NUM_VIDEOS):
        (tmp_path / f"v{index}.mp4").write_text("100")
    return VideoFolder(tmp_path)


def _training_set(
    folder: VideoFolder, *, seed: int = 3, sampling: str = "rand", max_attempts: int = 5
) -> RetrievalTrainingSet:
    rows = [CaptionRow(f"caption {index}", f"v{index}") for index in range(_NUM_VIDEOS)]
    return RetrievalTrainingSet(
        rows,
        folder,
        decoder=StubDecoder(),
        num_frames=4,
        sampling=sampling,
        frame_size=8,
        seed=seed,
        max_attempts=max_attempts,
    )


def _evaluation_videos(
    folder: VideoFolder, *, sampling: str = "rand", frame_order: str = "original"
) -> EvaluationVideos:
    return EvaluationVideos(
        ["v0", "v1", "absent", "v2"],
        folder,
        decoder=StubDecoder(),
        num_frames=4,
        sampling=sampling,
        frame_size=8,
        frame_order=frame_order,
        seed=3,
    )


def _times(frames: np.ndarray | None) -> list[int]:
    assert frames is not None
    return frames[:, 0, 0, 0].tolist()


def test_a_sample_is_a_function_of_seed_epoch_and_index(folder: VideoFolder) -> None:
    one, same, other = (_training_set(folder, seed=seed) for seed in (3, 3, 4))
    sample = one[7, 2]
    assert (sample.caption, sample.video_id, sample.unreadable) == ("caption 2", "v2", ())
    assert sample.frames.shape == (4, 3, 8, 8)
    _ = one[0, 0]
    assert _times(one[7, 2].frames) == _times(same[7, 2].frames) == _times(sample.frames)
    different = [one[8, 2], one[7, 3], other[7, 2]]
    assert all(_times(d.frames) != _times(sample.frames) for d in different)


def test_an_unreadable_video_is_replaced_and_reported(folder: VideoFolder) -> None:
    (folder.root / "v1.mp4").write_text("broken")
    (folder.root / "v2.mp4").unlink()
    training = _training_set(folder)
    assert [v.video_id for v in training[0, 2].unreadable][:1] == ["v2"]
    replacements = set()
    for epoch in range(40):
        sample = training[epoch, 1]
        assert sample.unreadable[0] == UnreadableVideo("v1", "broken")
        assert sample.caption == f"caption {sample.video_id[1:]}"
        assert training[epoch, 1].video_id == sample.video_id
        replacements.add(sample.video_id)
    assert replacements == {"v0", "v3", "v4", "v5"}


def test_a_folder_of_unreadable_videos_stops_the_run(folder: VideoFolder) -> None:
    for index in range(_NUM_VIDEOS):
        (folder.root / f"v{index}.mp4").write_text("broken")
    with pytest.raises(InputError, match="3 videos.*cannot be read.*v2: broken"):
        _ = _training_set(folder, max_attempts=3)[0, 2]


def test_segment_sampling_is_random_in_training_and_centred_in_evaluation(
    folder: VideoFolder,
) -> None:
    training = _training_set(folder, sampling="segment")
    assert _times(training[0, 0].frames) != _times(training[1, 0].frames)
    assert _times(_evaluation_videos(folder, sampling="segment")[0].frames) == [12, 37, 62, 87]


def test_evaluation_replaces_rand_by_uniform_and_never_a_video(folder: VideoFolder) -> None:
    videos = _evaluation_videos(folder)
    assert _times(videos[1].frames) == [0, 25, 50, 75]
    missing = videos[2]
    assert (missing.position, missing.video_id, missing.frames) == (2, "absent", None)
    assert missing.error is not None
    assert "no file" in missing.error
    randomly = _evaluation_videos(folder, sampling="headtail")
    assert _times(randomly[0].frames) == _times(randomly[0].frames)
    assert _times(randomly[0].frames) != _times(randomly[1].frames)


def test_frames_can_be_evaluated_out_of_order(folder: VideoFolder) -> None:
    assert _times(_evaluation_videos(folder, frame_order="reversed")[0].frames) == [75, 50, 25, 0]
    shuffled = _evaluation_videos(folder, frame_order="shuffled")
    orders = {tuple(_times(shuffled[position].frames)) for position in (0, 1, 3)}
    assert len(orders) > 1
    assert all(sorted(order) == [0, 25, 50, 75] for order in orders)


def test_batches_keep_rows_together(folder: VideoFolder, tmp_path: Path) -> None:
    (folder.root / "v1.mp4").write_text("broken")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "caption", "0", "1", "2", "3"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    collate = RetrievalCollate(load_tokenizer(tmp_path, vocab_size=10), max_length=8)
    training = _training_set(folder)
    samples = [training[0, index] for index in (3, 1)]
    batch = pickle.loads(pickle.dumps(collate))(samples).to("cpu")
    assert batch.frames.shape == (2, 4, 3, 8, 8)
    assert batch.frames.dtype == torch.uint8
    assert batch.video_ids == ["v3", samples[1].video_id]
    assert batch.text_ids[0].tolist() == [2, 5, 9, 3]
    assert batch.text_mask.tolist() == [[1] * 4] * 2
    assert batch.unreadable == [UnreadableVideo("v1", "broken"), *samples[1].unreadable[1:]]


def test_chunks_of_videos_list_what_is_unreadable(folder: VideoFolder) -> None:
    videos = _evaluation_videos(folder)
    batch = collate_videos([videos[position] for position in range(4)]).to("cpu")
    assert batch.frames is not None
    assert batch.frames.shape == (3, 4, 3, 8, 8)
    assert batch.positions == [0, 1, 3]
    assert [video.video_id for video in batch.unreadable] == ["absent"]
    nothing = collate_videos([videos[2]])
    assert nothing.frames is None
    assert nothing.to("cpu").positions == []


def test_real_files(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", num_frames=16)
    videos = EvaluationVideos(
        ["clip"],
        VideoFolder(tmp_path),
        decoder=PyAVDecoder(),
        num_frames=4,
        sampling="uniform",
        frame_size=32,
        seed=0,
    )
    frames = videos[0].frames
    assert frames is not None
    assert frames.shape == (4, 3, 32, 32)
    assert indices_of(frames) == [0, 4, 8, 12]
