"""Batches of clips, middle frames and captions."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from alpro.datasets.decoding import make_decoder
from alpro.datasets.storage import open_videos
from alpro.datasets.transforms.preprocessing import PixelPreprocessing
from alpro.datasets.video_datasets import (
    FrameReader,
    TrainingSample,
    TrainingVideos,
    UnreadableVideo,
)
from alpro.families.clip_vip.clip_data import ClipCollate
from alpro.tasks.pretraining.clips import Clip
from tests.datasets.clips import indices_of, write_clip
from tests.factories import VOCABULARY, make_tokenizer


def _sample(clip: Clip, *, num_frames: int, epoch: int = 0) -> TrainingSample[Clip]:
    frames = np.arange(num_frames, dtype=np.uint8)[None, :, None, None, None]
    return TrainingSample(np.tile(frames, (1, 1, 3, 8, 8)), clip, key=(epoch, 5))


def _words(ids: torch.Tensor) -> list[list[str]]:
    return [[VOCABULARY[token] for token in row if token] for row in ids.tolist()]


def _collate(folder: Path, *, seed: int = 1) -> ClipCollate:
    collate = ClipCollate(make_tokenizer(folder), num_frames=4, max_length=8, seed=seed)
    return pickle.loads(pickle.dumps(collate))


def test_middle_frames_are_split_off_and_have_captions(tmp_path: Path) -> None:
    clips = [Clip("a", ("red ball",), "a box"), Clip("b", ("box",), "")]
    lost = UnreadableVideo("c", "broken")
    samples = [_sample(clip, num_frames=5) for clip in clips]
    batch = _collate(tmp_path)([samples[0], replace(samples[1], unreadable=(lost,))]).to("cpu")
    assert batch.frames.shape == (2, 1, 4, 3, 8, 8)
    assert batch.frames[0, 0, :, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert batch.image.shape == (2, 1, 3, 8, 8)
    assert batch.image.unique().tolist() == [4]
    assert _words(batch.text_ids) == [["[CLS]", "red", "ball", "[SEP]"], ["[CLS]", "box", "[SEP]"]]
    assert _words(batch.caption_ids)[0] == ["[CLS]", "a", "box", "[SEP]"]
    assert batch.has_caption.tolist() == [True, False]
    assert batch.caption_mask.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert (batch.video_ids, batch.unreadable) == (["a", "b"], [lost])


def test_sets_without_middle_frames_have_no_pairs_of_frame_and_caption(tmp_path: Path) -> None:
    batch = _collate(tmp_path)([_sample(Clip("a", ("box",), "a box"), num_frames=4)])
    assert batch.frames.shape == (1, 1, 4, 3, 8, 8)
    assert batch.image.shape == (1, 1, 3, 8, 8)
    assert not batch.caption_mask.any()
    assert batch.has_caption.tolist() == [False]


def test_texts_are_drawn_by_seed_and_key(tmp_path: Path) -> None:
    clip = Clip("a", ("red", "ball"), "red")
    samples = [_sample(clip, num_frames=5, epoch=epoch) for epoch in range(64)]
    drawn, again, other = (
        _collate(tmp_path, seed=seed)(samples).text_ids[:, 1].tolist() for seed in (1, 1, 2)
    )
    assert drawn == again != other
    assert 16 < drawn.count(VOCABULARY.index("red")) < 48
    assert _collate(tmp_path)(samples[9:10]).text_ids[0, 1] == drawn[9]


def test_clips_are_read_with_their_middle_frame(tmp_path: Path) -> None:
    (tmp_path / "Bv3").mkdir()
    write_clip(tmp_path / "Bv3/Bv3.12.mp4", num_frames=15)
    reader = FrameReader(
        *(open_videos(tmp_path), make_decoder("pyav"), 4, "linspace"),
        PixelPreprocessing(size=16),
        middle_frame=True,
    )
    clip = Clip("Bv3.12.mp4", ("box",), "a box")
    (frames,) = TrainingVideos([clip], reader, seed=0)[0, 0].frames
    assert indices_of(frames) == [0, 4, 9, 14, 7]
