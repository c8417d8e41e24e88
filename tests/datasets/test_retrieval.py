from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch

from alpro.datasets.annotations import CaptionRow
from alpro.datasets.video_datasets import TrainingSample, UnreadableVideo
from alpro.tasks.retrieval.objective import RetrievalCollate
from tests.factories import VOCABULARY, make_tokenizer


def test_batches_keep_rows_together(tmp_path: Path) -> None:
    collate = RetrievalCollate(make_tokenizer(tmp_path), max_length=8)
    lost = UnreadableVideo("v1", "broken")
    samples = [
        TrainingSample(np.full((3, 4, 3, 8, 8), 7, np.uint8), CaptionRow("a red ball", "v3")),
        TrainingSample(np.full((3, 4, 3, 8, 8), 9, np.uint8), CaptionRow("box", "v0"), (lost,)),
    ]
    batch = pickle.loads(pickle.dumps(collate))(samples).to("cpu")
    assert batch.frames.shape == (2, 3, 4, 3, 8, 8)
    assert batch.frames.dtype == torch.uint8
    assert batch.frames[:, 0, 0, 0, 0, 0].tolist() == [7, 9]
    assert batch.video_ids == ["v3", "v0"]
    words = [[VOCABULARY[token] for token in row] for row in batch.text_ids.tolist()]
    assert words[0] == ["[CLS]", "a", "red", "ball", "[SEP]"]
    assert words[1] == ["[CLS]", "box", "[SEP]", "[PAD]", "[PAD]"]
    assert batch.text_mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch.unreadable == [lost]


def test_texts_are_drawn_by_seed_epoch_and_place(tmp_path: Path) -> None:
    row = CaptionRow("a", "v", 0, ("red", "ball"))
    frames = np.zeros((1, 4, 3, 8, 8), np.uint8)
    samples = [TrainingSample(frames, row, key=(epoch, 5)) for epoch in range(60)]
    tokenizer = make_tokenizer(tmp_path)
    ids, again, other = (
        RetrievalCollate(tokenizer, max_length=8, seed=seed)(samples).text_ids[:, 1].tolist()
        for seed in (1, 1, 2)
    )
    assert ids == again != other
    assert {VOCABULARY[token] for token in ids} == {"a", "red", "ball"}
    alone = RetrievalCollate(tokenizer, max_length=8, seed=1)(samples[7:8])
    assert alone.text_ids[0, 1] == ids[7]
