from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alpro.commands.gallery.entities import (
    REGION,
    Guess,
    ShownClip,
    best_guesses,
    entity_gallery,
    erased_frames,
    outlined_frames,
)

GREY = 200


@pytest.fixture
def clip() -> ShownClip:
    """Two grey frames, 32 pixels wide, of 4 patches a side; the region is 2 high and 1 wide."""
    region = np.zeros((4, 4), bool)
    region[1:3, 2] = True
    return ShownClip(
        video_id="clip7",
        caption="a dog <b>runs</b> & barks",
        frames=np.full((2, 3, 32, 32), GREY, np.uint8),
        region=region,
        prompter=(Guess("dog", 0.75), Guess("cat", 0.25)),
        model=(Guess("cat", 0.5), Guess("dog", 0.5)),
        is_confident=True,
    )


def test_the_best_entities_come_first_and_of_equal_ones_the_earlier() -> None:
    probabilities = np.array([0.1, 0.3, 0.3, 0.2, 0.1], np.float32)
    best = best_guesses(probabilities, ["a", "b", "c", "d", "e"], num_guesses=4)
    assert [guess.entity for guess in best] == ["b", "c", "d", "a"]
    assert best[2].probability == pytest.approx(0.2)
    assert len(best_guesses(probabilities[:2], ["a", "b"])) == 2


def test_a_clip_knows_what_its_caption_says_and_who_agrees(clip: ShownClip) -> None:
    assert clip.mentions("dog")
    assert not clip.mentions("do")
    assert not clip.agrees
    assert replace(clip, model=clip.prompter).agrees


def test_the_prompter_sees_nothing_but_the_region(clip: ShownClip) -> None:
    frames = erased_frames(clip, side=32)
    assert len(frames) == 2
    expected = np.zeros((32, 32, 3), np.uint8)
    expected[8:24, 16:24] = GREY
    assert (np.asarray(frames[1]) == expected).all()


def test_the_outline_goes_round_the_region(clip: ShownClip) -> None:
    frame = np.asarray(outlined_frames(clip, side=64)[0])
    rows, columns = (frame == np.array(REGION)).all(axis=-1).nonzero()
    assert (rows.min(), rows.max()) == (16, 47)
    assert (columns.min(), columns.max()) == (32, 47)
    assert (frame[24:40, 38:42] == GREY).all()
    assert (frame[:, :32] == GREY).all()
    assert (frame[:16] == GREY).all()


def test_the_outline_of_the_whole_frame_is_seen(clip: ShownClip) -> None:
    frames = outlined_frames(replace(clip, region=np.ones((4, 4), bool)), side=64)
    assert {frames[0].getpixel(corner) for corner in ((0, 0), (63, 63), (0, 63))} == {REGION}


def test_bars_are_of_prompter_and_model_and_entities_of_the_caption_green(clip: ShownClip) -> None:
    (card,) = entity_gallery([clip], note="", threshold=0.2).cards
    prompter, model = (strip.bars for strip in card.strips)
    assert [(bar.name.text, bar.name.role, bar.probability) for bar in prompter] == [
        *(("dog", "correct", 0.75), ("cat", "pale", 0.25))
    ]
    assert [bar.threshold for bar in prompter] == [0.2, None]
    assert [(bar.name.text, bar.threshold) for bar in model] == [("cat", None), ("dog", None)]
    assert {bar.role for bar in prompter} == {"prompter"}
    assert {bar.role for bar in model} == {"model"}


def test_clips_that_count_are_counted(clip: ShownClip) -> None:
    unsure = replace(clip, is_confident=False, model=clip.prompter)
    clips = [clip, unsure, replace(clip, model=clip.prompter)]
    gallery = entity_gallery(clips, note="", threshold=0.2)
    assert "Of 3 clips the prompter is confident on 2; on 1 of these" in gallery.legend[-1].text
    assert [card.title[-1].text for card in gallery.cards] == [
        *("prompter confident", "below 0.2: no entity loss", "prompter confident")
    ]
    gallery = entity_gallery([unsure, unsure], note="", threshold=0.2)
    assert "confident on none of 2 clips" in gallery.legend[-1].text
