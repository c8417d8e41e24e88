"""Files of galleries: pictures and pages."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alpro.commands.gallery.cards import Bar, Card, Gallery, Role, Strip, Text
from alpro.commands.gallery.output import check_picture, write_gallery
from alpro.commands.gallery.picture import (
    BAR_WIDTH,
    BARS_WIDTH,
    COLORS,
    LEGEND_HEIGHT,
    MARGIN,
    _wrapped,
    draw_gallery,
)
from alpro.errors import InputError

SIDE = 20


@pytest.fixture
def frames() -> list[Image.Image]:
    return [Image.new("RGB", (2 * SIDE, 2 * SIDE), (0, 0, brightness)) for brightness in (0, 99)]


@pytest.fixture
def gallery(frames: list[Image.Image]) -> Gallery:
    """A card of a strip with bars."""
    bars = [
        Bar(Text("dog", "correct"), 0.75, "prompter", threshold=0.2),
        Bar(Text("cat"), 0.25, "prompter"),
    ]
    strip = Strip([Text("all <frames>"), Text("clip7")], frames, "correct", bars)
    card = Card([Text("a dog <b>runs</b> & barks", "plain"), Text("note")], [strip])
    return Gallery("Title", [Text("legend")], [card], side=SIDE, note="a/<run>")


def side_by_side(frames: list[Image.Image], *, name: str = "clip") -> Gallery:
    strips = [Strip([Text(name), Text("score 1")], frames, "wrong")] * 2
    strips.append(Strip([Text("own"), Text("score 1")], frames, "correct"))
    return Gallery("Title", [], [Card([Text("query")], strips)], side=SIDE)


def test_a_legend_wider_than_the_picture_is_broken_into_lines(frames: list[Image.Image]) -> None:
    card = Card([Text("query")], [Strip([Text("own")], frames)])
    words = Text(" ".join(["similarity"] * 12), "correct")
    short, long = (
        draw_gallery(Gallery("Title", [text], [card], side=SIDE)) for text in (Text("own"), words)
    )
    assert long.width == short.width
    num_more, rest = divmod(long.height - short.height, LEGEND_HEIGHT)
    assert num_more >= 1
    assert rest == 0
    lines = _wrapped(words, short.width - 2 * MARGIN)
    assert len(lines) == 1 + num_more
    assert " ".join(line.text for line in lines) == words.text


class Reader(HTMLParser):
    """Collects the pictures and checks that every tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[Image.Image] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src")
        if tag == "img" and source is not None:
            assert source.startswith("data:image/jpeg;base64,")
            content = base64.b64decode(source.partition(",")[2])
            self.pictures.append(Image.open(io.BytesIO(content)))
        elif tag not in ("meta", "wbr"):
            assert not {"src", "href"} & dict(attrs).keys()
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(gallery: Gallery, folder: Path) -> str:
    write_gallery(gallery, folder / "page", named_by="--output", is_page=True)
    return (folder / "page").read_text()


def test_a_page_needs_no_other_file(gallery: Gallery, tmp_path: Path) -> None:
    page, reader = page_of(gallery, tmp_path), Reader()
    reader.feed(page)
    assert reader.open == []
    assert [picture.size for picture in reader.pictures] == [(2 * SIDE, 2 * SIDE)] * 2
    assert "url(" not in page


def test_texts_of_a_page_are_escaped(gallery: Gallery, tmp_path: Path) -> None:
    page = page_of(gallery, tmp_path)
    assert '<bdi lang="">a dog &lt;b&gt;runs&lt;/b&gt; &amp; barks</bdi>' in page
    assert "all &lt;frames&gt;" in page
    assert "a/<wbr>&lt;run&gt;" in page


def test_bars_of_a_page_are_as_long_as_probable(gallery: Gallery, tmp_path: Path) -> None:
    page = page_of(gallery, tmp_path)
    assert re.findall(r'class="bar" style="width: ([\d.]+)%"', page) == ["75.0", "25.0"]
    assert re.findall(r'class="mark" style="left: ([\d.]+)%"', page) == ["20.0"]
    assert '<span class="correct"><bdi lang="">dog</bdi></span>' in page
    assert '<div class="frames outline correct">' in page


def pixels_of(sheet: Image.Image, role: Role) -> np.ndarray:
    return (np.asarray(sheet) == np.array(COLORS[role])).all(axis=-1)


def test_bars_of_a_picture_are_as_long_as_probable(gallery: Gallery) -> None:
    widths = pixels_of(draw_gallery(gallery), "prompter").sum(axis=1)
    assert widths.max() == pytest.approx(0.75 * BAR_WIDTH, abs=4)
    assert widths[widths > 0].min() == pytest.approx(0.25 * BAR_WIDTH, abs=2)


def test_strips_without_bars_stand_side_by_side(frames: list[Image.Image]) -> None:
    sheet = draw_gallery(side_by_side(frames))
    (columns,) = np.nonzero(pixels_of(sheet, "correct").sum(axis=0) > SIDE)
    assert columns.min() > 0.6 * sheet.width
    (columns,) = np.nonzero(pixels_of(sheet, "wrong").sum(axis=0) > SIDE)
    assert (columns.min(), columns.max() < 0.6 * sheet.width) == (MARGIN, True)


def test_a_long_name_is_cut_before_it_reaches_the_scores(frames: list[Image.Image]) -> None:
    short, long = (
        np.asarray(draw_gallery(side_by_side(frames * 8, name="n" * count))) for count in (40, 400)
    )
    assert (short == long).all()


def test_a_picture_grows_with_cards_frames_and_bars(
    gallery: Gallery, frames: list[Image.Image]
) -> None:
    card = gallery.cards[0]
    sheet = draw_gallery(gallery)
    assert draw_gallery(Gallery("", [], [card] * 3, side=SIDE)).height > 1.9 * sheet.height
    plain = Gallery("", [], [Card(card.title, [Strip([Text("")], frames)])], side=SIDE)
    assert draw_gallery(plain).width < sheet.width - BARS_WIDTH
    long = Gallery("", [], [Card(card.title, [Strip([Text("")], frames * 30)])], side=SIDE)
    assert draw_gallery(long).width > 60 * SIDE


@pytest.mark.parametrize("name", ["a.txt", "a", "folder", "file/a.png", "a.docx"])
def test_a_picture_that_cannot_be_written_is_refused_before_it_is_drawn(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"^cannot write {tmp_path / name}: .*another --picture$"):
        check_picture(tmp_path / name)
    check_picture(tmp_path / "new/a.PNG")
    check_picture(tmp_path / "new/a.html")
    assert not (tmp_path / "new").exists()
