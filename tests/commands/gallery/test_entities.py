from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alpro.commands.gallery.cards import Gallery
from alpro.commands.gallery.entities import (
    NUM_BARS,
    REGION,
    entity_gallery,
    erased_frames,
    outlined_frames,
)
from alpro.commands.gallery.entity_predictions import PairPrediction
from alpro.tasks.pretraining.annotations import CaptionedItem

GREY = 200
ENTITIES = ["bird", "cat", "dog"]


@pytest.fixture
def clip() -> PairPrediction:
    """Two grey frames, 32 pixels wide, of 4 patches a side; the region is 2 high and 1 wide."""
    region = np.zeros((4, 4), bool)
    region[1:3, 2] = True
    return PairPrediction(
        item=CaptionedItem("clip7", ("a dog barks",), "video"),
        caption="a Dog barks",
        frames=np.full((2, 3, 32, 32), GREY, np.uint8),
        region=region,
        prompter=np.array([0.125, 0.25, 0.625], np.float32),
        model=np.array([0.0, 0.5, 0.5], np.float32),
        is_confident=True,
    )


def gallery_of(*clips: PairPrediction) -> Gallery:
    return entity_gallery(clips, ENTITIES, note="", threshold=0.2)


def test_the_prompter_sees_nothing_but_the_region(clip: PairPrediction) -> None:
    frames = erased_frames(clip, side=32)
    assert len(frames) == 2
    expected = np.zeros((32, 32, 3), np.uint8)
    expected[8:24, 16:24] = GREY
    assert (np.asarray(frames[1]) == expected).all()


def test_the_outline_goes_round_the_region(clip: PairPrediction) -> None:
    frame = np.asarray(outlined_frames(clip, side=64)[0])
    rows, columns = (frame == np.array(REGION)).all(axis=-1).nonzero()
    assert (rows.min(), rows.max()) == (16, 47)
    assert (columns.min(), columns.max()) == (32, 47)
    assert (frame[24:40, 38:42] == GREY).all()
    assert (frame[:, :32] == GREY).all()
    assert (frame[:16] == GREY).all()


def test_the_outline_of_the_whole_frame_is_seen(clip: PairPrediction) -> None:
    frames = outlined_frames(replace(clip, region=np.ones((4, 4), bool)), side=64)
    assert {frames[0].getpixel(corner) for corner in ((0, 0), (63, 63), (0, 63))} == {REGION}


def test_bars_are_of_the_best_entities_and_those_of_the_caption_green(
    clip: PairPrediction,
) -> None:
    (card,) = gallery_of(clip).cards
    prompter, model = (strip.bars for strip in card.strips)
    assert [(bar.name.text, bar.name.role, bar.probability) for bar in prompter] == [
        *(("dog", "correct", 0.625), ("cat", "pale", 0.25), ("bird", "pale", 0.125))
    ]
    assert [bar.threshold for bar in prompter] == [0.2, None, None]
    # Of equal ones the first comes first.
    assert [bar.name.text for bar in model] == ["cat", "dog", "bird"]
    assert [bar.threshold for bar in model] == [None] * 3
    assert {bar.role for bar in prompter} == {"prompter"}
    assert {bar.role for bar in model} == {"model"}


def test_few_of_many_entities_are_shown(clip: PairPrediction) -> None:
    many = replace(clip, prompter=np.full(9, 1 / 9), model=np.full(9, 1 / 9))
    (card,) = entity_gallery([many], list("abcdefghi"), note="", threshold=0.2).cards
    assert [len(strip.bars) for strip in card.strips] == [NUM_BARS] * 2


def test_clips_that_count_are_counted(clip: PairPrediction) -> None:
    unsure = replace(clip, is_confident=False, model=clip.prompter)
    gallery = gallery_of(clip, unsure, replace(clip, model=clip.prompter))
    assert "Of 3 clips the prompter is confident on 2; on 1 of these" in gallery.legend[-1].text
    assert [card.title[-1].text for card in gallery.cards] == [
        *("prompter confident", "below 0.2: no entity loss", "prompter confident")
    ]
    assert "confident on none of 2 clips" in gallery_of(unsure, unsure).legend[-1].text
