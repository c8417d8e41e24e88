"""A gallery as plain values: cards of frames, bars and texts, for a page or for a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL import Image

Role = Literal["plain", "pale", "correct", "wrong", "prompter", "model", "region"]
"""Decides the colour: a class of the page's style sheet, a key of the picture's colours."""


@dataclass(frozen=True, slots=True)
class Text:
    """Words with a role."""

    text: str
    role: Role = "pale"


Line = Sequence[Text]
"""The first text on the left, shortened where room is short; the others on the right."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A probability with its name."""

    name: Text
    probability: float
    role: Role
    threshold: float | None = None
    """Marked in the bar."""

    @property
    def share(self) -> float:
        """Of the bar's full length, in case that the probability is none."""
        return min(max(self.probability, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Strip:
    """Frames of a clip, and the bars that belong to them."""

    caption: Line
    frames: Sequence[Image.Image]
    outline: Role | None = None
    bars: Sequence[Bar] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """A query, question or caption with its strips."""

    title: Line
    strips: Sequence[Strip]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cards one below the other, with a legend of short lines."""

    title: str
    legend: Sequence[Text]
    cards: Sequence[Card]
    side: int
    """Of the frames as they are shown, in pixels; those given have ``SHARPNESS`` times as many."""
    note: str = ""
    """Where all this is from; on a page only."""

    @property
    def strips(self) -> list[Strip]:
        """Those of all cards."""
        return [strip for card in self.cards for strip in card.strips]

    def texts(self) -> Iterator[str]:
        """All that is written in a picture."""
        lines = [card.title for card in self.cards] + [strip.caption for strip in self.strips]
        for line in (self.legend, *lines):
            yield from (text.text for text in line)
        yield from (bar.name.text for strip in self.strips for bar in strip.bars)


SHARPNESS = 2
"""Stored pixels for each one of a page, which dense screens show."""
