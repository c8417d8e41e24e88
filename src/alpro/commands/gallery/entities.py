"""Masked regions with the entities that prompter and model give them, as cards.

Shapes: ``T`` frames, ``S`` side of the square frames in pixels, ``P`` patches along each side,
``K`` entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from alpro.commands.gallery.cards import SHARPNESS, Bar, Card, Gallery, Role, Strip, Text
from alpro.commands.nouns import tokens_of
from alpro.errors import pluralize

if TYPE_CHECKING:
    from alpro.commands.gallery.entity_predictions import PairPrediction

TITLE = "Entities of masked regions"
SIDE = 120  # of a frame, in pixels
NUM_BARS = 5
REGION = (255, 92, 38)
REGION_EDGE = (255, 255, 255)
"""Inside of the outline, so that it shows on everything."""
REGION_WIDTH = 1 / 40  # of the frame's side
LEGEND = (
    Text("Orange: the region. The prompter sees it alone and rates the entities in it.", "region"),
    Text("The model sees frames and caption, and learns to rate the region alike.", "model"),
    Text("Green: entities in the caption.", "correct"),
)


def entity_gallery(
    pairs: Sequence[PairPrediction], entities: Sequence[str], *, note: str, threshold: float
) -> Gallery:
    """A card for each pair, and a legend.

    Args:
        pairs: shown one below the other.
        entities: K of them.
        note: the source of the pairs.
        threshold: of the best entity's probability, for a pair to count in the entity loss.
    """
    lost = f"A clip whose best entity stays below {threshold:g} (the line) gives no entity loss."
    legend = (*LEGEND, Text(lost), Text(_summary(pairs), "plain"))
    cards = [_card(pair, entities, threshold=threshold) for pair in pairs]
    return Gallery(TITLE, legend, cards, side=SIDE, note=note)


def _summary(pairs: Sequence[PairPrediction]) -> str:
    confident = [pair for pair in pairs if pair.is_confident]
    if not confident:
        return f"The prompter is confident on none of {pluralize(len(pairs), 'clip')}."
    agreed = sum(pair.prompter.argmax() == pair.model.argmax() for pair in confident)
    return (
        f"Of {pluralize(len(pairs), 'clip')} the prompter is confident on {len(confident)}; on"
        f" {agreed} of these the model's first guess is the prompter's."
    )


def _card(pair: PairPrediction, entities: Sequence[str], *, threshold: float) -> Card:
    words = set(tokens_of(pair.caption))

    def bars(probabilities: np.ndarray, role: Role, threshold: float | None = None) -> list[Bar]:
        """The best entities, of equal ones the first; the threshold is marked in the first bar."""
        best = np.argsort(-probabilities, kind="stable")[:NUM_BARS]
        names = [
            Text(entities[index], "correct" if entities[index].lower() in words else "pale")
            for index in best
        ]
        marks = [threshold, *[None] * NUM_BARS]
        shown = zip(names, probabilities[best].tolist(), marks, strict=False)
        return [Bar(name, probability, role, mark) for name, probability, mark in shown]

    note = Text(f"below {threshold:g}: no entity loss")
    if pair.is_confident:
        note = Text("prompter confident", "correct")
    title = (Text(f"“{pair.caption}”", "plain"), Text(pair.item.video_id), note)
    prompter = Strip(
        [Text("The prompter sees the region alone")],
        erased_frames(pair, side=SHARPNESS * SIDE),
        bars=bars(pair.prompter, "prompter", threshold),
    )
    model = Strip(
        [Text("The model sees frames and caption, and is asked the same")],
        outlined_frames(pair, side=SHARPNESS * SIDE),
        bars=bars(pair.model, "model"),
    )
    return Card(title, [prompter, model])


def outlined_frames(pair: PairPrediction, *, side: int) -> list[Image.Image]:
    """The frames with the region outlined, a box of patches; ``side`` pixels wide and high."""
    rows, columns = (np.flatnonzero(pair.region.any(axis=axis)) for axis in (1, 0))
    corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (round(side / len(pair.region) * corner) for corner in corners)
    width = max(2, round(REGION_WIDTH * side))
    frames = _scaled(pair.frames, side=side)
    for frame in frames:
        draw, box = ImageDraw.Draw(frame), (left, top, right - 1, bottom - 1)
        draw.rectangle(box, outline=REGION_EDGE, width=width + 1)
        draw.rectangle(box, outline=REGION, width=width)
    return frames


def erased_frames(pair: PairPrediction, *, side: int) -> list[Image.Image]:
    """The frames as the prompter gets them, black outside of the region."""
    patch_size = pair.frames.shape[-1] // len(pair.region)
    inside = pair.region.repeat(patch_size, axis=0).repeat(patch_size, axis=1)  # (S, S)
    return _scaled(pair.frames * inside.astype(np.uint8), side=side)


def _scaled(frames: np.ndarray, *, side: int) -> list[Image.Image]:
    pictures = [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]
    return [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]
