from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alpro.datasets.video_datasets import TrainingSample, UnreadableVideo
from alpro.file_kinds import Media
from alpro.tasks.pretraining.annotations import CaptionedItem
from alpro.tasks.pretraining.batches import IGNORED, PretrainBatch, PretrainCollate
from tests.factories import VOCABULARY, make_tokenizer

LONG = "a red ball and a blue box right left red"


@pytest.fixture
def collate(tmp_path: Path) -> PretrainCollate:
    return collator(tmp_path)


def collator(folder: Path, **changes: Any) -> PretrainCollate:
    arguments = {
        "max_length": 12,
        "mlm_probability": 0.5,
        "patches": (4, 16),
        "seed": 3,
        **changes,
    }
    return PretrainCollate(make_tokenizer(folder), **arguments)


def sample(
    index: int = 0,
    *captions: str,
    epoch: int = 0,
    media: Media = "video",
    unreadable: tuple[UnreadableVideo, ...] = (),
) -> TrainingSample[CaptionedItem]:
    """A sample whose pixels are its index."""
    item = CaptionedItem(f"v{index}", captions or ("a red ball",), media)
    frames = np.full((1, 2, 3, 64, 64), index, np.uint8)
    return TrainingSample(frames, item, unreadable, key=(epoch, index))


def words(batch: PretrainBatch, row: int) -> str:
    length = int(batch.text_mask[row].sum())
    return " ".join(VOCABULARY[token] for token in batch.text_ids[row, 1 : length - 1].tolist())


def given(tensor: torch.Tensor | None) -> torch.Tensor:
    assert tensor is not None
    return tensor


def test_batches_keep_rows_together(collate: PretrainCollate) -> None:
    lost = UnreadableVideo("v9", "broken")
    samples = [sample(7, LONG), sample(4, "box", unreadable=(lost,))]
    batch = pickle.loads(pickle.dumps(collate))(samples).to("cpu")
    assert batch.frames.shape == (2, 1, 2, 3, 64, 64)
    assert batch.frames.dtype == torch.uint8
    assert batch.frames[:, 0, 0, 0, 0, 0].tolist() == [7, 4]
    assert [words(batch, row) for row in range(2)] == [LONG, "box"]
    assert batch.text_mask.sum(dim=1).tolist() == [12, 3]
    assert given(batch.masked_ids).shape == given(batch.mlm_labels).shape == (2, 12)
    assert given(batch.region).shape == (2, 4, 4)
    assert given(batch.region).dtype == torch.bool
    assert (batch.media, batch.video_ids, batch.unreadable) == ("video", ["v7", "v4"], [lost])


def test_labels_are_the_words_that_are_hidden(collate: PretrainCollate) -> None:
    batch = collate([sample(index, LONG if index % 2 else "a box") for index in range(20)])
    masked, labels = given(batch.masked_ids), given(batch.mlm_labels)
    chosen = labels != IGNORED
    assert torch.equal(labels[chosen], batch.text_ids[chosen])
    assert torch.equal(masked[~chosen], batch.text_ids[~chosen])
    mask_id = VOCABULARY.index("[MASK]")
    assert 0.6 < (masked[chosen] == mask_id).float().mean() < 0.95
    first, last = 0, batch.text_mask.sum(dim=1) - 1
    assert not chosen[:, first].any()
    assert not chosen[torch.arange(20), last].any()
    assert not chosen[batch.text_mask == 0].any()
    assert 0.3 < chosen[batch.text_mask == 1].float().mean() < 0.6


def test_random_choices_depend_on_the_sample_alone(collate: PretrainCollate) -> None:
    """A batch of one, and one where padding and neighbours differ, agree on it."""
    one = sample(5, "a red ball", "a blue box", "left red box", epoch=2)
    alone = collate([one])
    together = collate([sample(1, LONG), one, sample(2)])
    length = alone.text_ids.shape[1]
    assert length < together.text_ids.shape[1]
    for name in ("text_ids", "masked_ids", "mlm_labels"):
        assert torch.equal(getattr(alone, name)[0], getattr(together, name)[1, :length]), name
    assert torch.equal(given(alone.region)[0], given(together.region)[1])


def test_each_epoch_index_and_seed_draws_another_region(tmp_path: Path) -> None:
    collate = collator(tmp_path)
    captions = ("a red ball", "a blue box", "left red box")

    def drawn(collate: PretrainCollate, samples: list[Any]) -> tuple[int, int, int]:
        """How many different captions, labels and regions there are."""
        batches = [collate([one]) for one in samples]
        return (
            len({words(batch, 0) for batch in batches}),
            len({str(given(batch.mlm_labels).tolist()) for batch in batches}),
            len({str(given(batch.region).tolist()) for batch in batches}),
        )

    same = [sample(3, *captions, epoch=2) for _ in range(12)]
    assert drawn(collate, same) == (1, 1, 1)
    for samples in (
        [sample(3, *captions, epoch=epoch) for epoch in range(12)],
        [sample(index, *captions) for index in range(12)],
    ):
        num_captions, num_labels, num_regions = drawn(collate, samples)
        assert num_captions == 3
        assert min(num_labels, num_regions) > 3
    seeds = [collator(tmp_path, seed=seed)([sample(3)]).region for seed in range(12)]
    assert len({str(given(region).tolist()) for region in seeds}) > 3


def test_a_disabled_objective_draws_nothing(tmp_path: Path) -> None:
    samples = [sample(index, LONG, "a box") for index in range(4)]
    full = collator(tmp_path)(samples)
    wordless = collator(tmp_path, mlm_probability=None)(samples)
    assert wordless.masked_ids is None
    assert wordless.mlm_labels is None
    assert torch.equal(given(wordless.region), given(full.region))
    regionless = collator(tmp_path, patches=None)(samples)
    assert regionless.region is None
    assert torch.equal(given(regionless.masked_ids), given(full.masked_ids))
    assert torch.equal(regionless.text_ids, wordless.text_ids)


def test_no_word_may_be_hidden(tmp_path: Path) -> None:
    batch = collator(tmp_path, mlm_probability=0.0)([sample(0, LONG)])
    assert torch.equal(given(batch.masked_ids), batch.text_ids)
    assert (given(batch.mlm_labels) == IGNORED).all()


def test_images_are_a_medium_of_their_own(collate: PretrainCollate) -> None:
    assert collate([sample(media="image"), sample(1, media="image")]).media == "image"
    with pytest.raises(ValueError, match="videos and images in one batch"):
        collate([sample(), sample(1, media="image")])


def test_unreadable_videos_are_left_out_and_listed(collate: PretrainCollate) -> None:
    lost, replaced = UnreadableVideo("v8", "broken"), UnreadableVideo("v9", "gone")
    batch = collate([lost, sample(1), sample(2, unreadable=(replaced,))])
    assert batch.video_ids == ["v1", "v2"]
    assert len(batch.frames) == len(batch.text_ids) == len(given(batch.region)) == 2
    assert batch.unreadable == [lost, replaced]


def test_a_batch_may_be_empty(collate: PretrainCollate) -> None:
    lost = [UnreadableVideo("v8", "broken"), UnreadableVideo("v9", "gone")]
    batch = collate(lost).to("cpu")
    assert batch.unreadable == lost
    assert batch.video_ids == []
    tensors = (batch.frames, batch.text_ids, batch.text_mask, batch.masked_ids, batch.region)
    assert [len(given(tensor)) for tensor in tensors] == [0] * 5
    assert given(batch.region).dtype == torch.bool
    assert given(batch.mlm_labels).dtype == torch.int64
