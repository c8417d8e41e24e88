from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from alpro.commands.gallery.clip_cards import (
    REGION,
    Guess,
    ShownClip,
    best_guesses,
    erased_frames,
    outlined_frames,
)
from alpro.commands.gallery.drawing import BAR_WIDTH, CORRECT, MARGIN, PANEL_WIDTH
from alpro.commands.gallery.entity_page import STORED_SIDE, entity_page
from alpro.commands.gallery.entity_sheet import (
    LEGEND_HEIGHT,
    MODEL,
    PROMPTER,
    TITLE_HEIGHT,
    draw_sheet,
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


class Reader(HTMLParser):
    """Collects the pictures and checks that what opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[Image.Image] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert value is not None
            if name in ("src", "href"):
                self.links.append(value)
        if tag == "img":
            content = base64.b64decode((dict(attrs)["src"] or "").partition(",")[2])
            self.pictures.append(Image.open(io.BytesIO(content)))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def page_of(*clips: ShownClip) -> str:
    return entity_page(clips, title="Title", note="a <run>", threshold=0.2)


def test_a_page_needs_nothing_else(clip: ShownClip) -> None:
    reader = read(page_of(clip))
    assert len(reader.pictures) == 4  # two frames as they are, and as the prompter sees them
    assert {picture.size for picture in reader.pictures} == {(STORED_SIDE, STORED_SIDE)}
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    assert "url(" not in page_of(clip)


def test_texts_are_no_markup(clip: ShownClip) -> None:
    page = page_of(clip)
    assert "“a dog &lt;b&gt;runs&lt;/b&gt; &amp; barks”" in page
    assert "a &lt;run&gt;" in page


def test_bars_are_as_long_as_probable_and_what_the_caption_says_is_green(clip: ShownClip) -> None:
    page = page_of(clip)
    assert page.index("What the prompter sees") < page.index("What the model sees")
    assert re.findall(r'class="bar" style="width: ([\d.]+)%"', page) == ["75.0", "25.0", "50.0"] + [
        "50.0"
    ]
    assert page.count('<span class="said">dog</span>') == 2
    assert page.count("<span>cat</span>") == 2
    assert page.count('class="mark" style="left: 20.0%"') == 1


def test_clips_that_count_are_counted(clip: ShownClip) -> None:
    unsure = replace(clip, is_confident=False, model=clip.prompter)
    page = " ".join(page_of(clip, unsure, replace(clip, model=clip.prompter)).split())
    assert "Of 3 clips the prompter is confident on 2; on 1 of these" in page
    assert page.count("below 0.2: no entity loss") == 1
    assert page.count(">confident<") == 2
    assert "Of 1 clip the" in page_of(clip)
    assert "confident on none of 2 clips" in page_of(unsure, unsure)


def widest(sheet: Image.Image, color: tuple[int, int, int]) -> int:
    """The longest run of a colour in a row among the bars, in pixels."""
    panel = np.asarray(sheet)[:, -PANEL_WIDTH - 20 :]
    return int((panel == np.array(color)).all(axis=-1).sum(axis=1).max())


def test_a_picture_shows_bars_and_region(clip: ShownClip) -> None:
    sheet = draw_sheet([clip, replace(clip, frames=clip.frames[:1])], threshold=0.2)
    assert widest(sheet, PROMPTER) == pytest.approx(0.75 * BAR_WIDTH, abs=2)
    assert widest(sheet, MODEL) == pytest.approx(0.5 * BAR_WIDTH, abs=2)
    pixels = np.asarray(sheet)
    assert (pixels == np.array(REGION)).all(axis=-1).any()
    assert (pixels == np.array(CORRECT)).all(axis=-1).any()


def test_a_picture_names_its_clips_and_explains_itself(clip: ShownClip) -> None:
    sheets = [
        np.asarray(draw_sheet([one], threshold=threshold))
        for one, threshold in ((clip, 0.2), (replace(clip, video_id="other"), 0.2), (clip, 0.5))
    ]
    rows_of_id, rows_of_legend = (
        (sheets[0] != sheet).any(axis=(1, 2)).nonzero()[0] for sheet in sheets[1:]
    )
    assert rows_of_id.max() < TITLE_HEIGHT + MARGIN
    assert rows_of_legend.min() > len(sheets[0]) - MARGIN - LEGEND_HEIGHT


def test_a_picture_grows_with_clips_and_frames(clip: ShownClip) -> None:
    one, two = (draw_sheet([clip] * count, threshold=0.2) for count in (1, 2))
    assert two.height > 1.7 * one.height
    long = replace(clip, frames=clip.frames.repeat(5, axis=0))
    assert draw_sheet([long], threshold=0.2).width > one.width
