"""Clips with their masked regions and guesses, as cards.

Shapes: ``T`` frames, ``S`` side of the square frames in pixels, ``P`` patches along each side,
``K`` entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from alpro.commands.cli import pluralize
from alpro.commands.gallery.cards import SHARPNESS, Bar, Card, Gallery, Role, Strip, Text
from alpro.commands.nouns import tokens_of

TITLE = "Entities of masked regions"
SIDE = 120  # of a frame, in pixels
NUM_GUESSES = 5
REGION = (255, 92, 38)
REGION_EDGE = (255, 255, 255)
"""Inside of the outline, so that it shows on everything."""
REGION_WIDTH = 1 / 40  # of the frame's side


@dataclass(frozen=True, slots=True)
class Guess:
    """An entity and its probability."""

    entity: str
    probability: float


@dataclass(frozen=True, slots=True)
class ShownClip:
    """A video or image with its masked region and what was made of that."""

    video_id: str
    caption: str
    frames: np.ndarray  # (T, 3, S, S) uint8, as models get them; of an image T is 1
    region: np.ndarray  # (P, P) bool, true inside, where it is a box
    prompter: tuple[Guess, ...]
    """The prompter's guesses for the region alone, best first."""
    model: tuple[Guess, ...]
    """The model's guesses for the region of the whole clip, best first."""
    is_confident: bool
    """Whether the prompter is sure enough for the entity loss to count the clip."""

    @property
    def agrees(self) -> bool:
        """Whether the model's first guess is the prompter's."""
        return self.model[0].entity == self.prompter[0].entity

    def mentions(self, entity: str) -> bool:
        """Whether the caption has this word."""
        return entity.lower() in tokens_of(self.caption)


def entity_gallery(clips: Sequence[ShownClip], *, note: str, threshold: float) -> Gallery:
    """A card for each clip, and a legend.

    Args:
        clips: shown one below the other.
        note: the source of clips and guesses.
        threshold: of the best entity's probability, for a clip to count.
    """
    legend = (
        Text(
            "Orange: the region. The prompter sees nothing else, and gives each entity a"
            " probability.",
            "region",
        ),
        Text(
            "The model sees whole frames and the caption, and learns to give the same of that"
            " region.",
            "model",
        ),
        Text("Green: entities in the caption.", "correct"),
        Text(
            f"A clip whose best entity stays below {threshold:g} (the line in its bar) gives no"
            " entity loss."
        ),
        Text(_summary(clips), "plain"),
    )
    cards = [_card(clip, threshold=threshold) for clip in clips]
    return Gallery(TITLE, legend, cards, side=SIDE, note=note)


def _summary(clips: Sequence[ShownClip]) -> str:
    confident = [clip for clip in clips if clip.is_confident]
    if not confident:
        return f"The prompter is confident on none of {pluralize(len(clips), 'clip')}."
    agreed = sum(clip.agrees for clip in confident)
    return (
        f"Of {pluralize(len(clips), 'clip')} the prompter is confident on {len(confident)}; on"
        f" {agreed} of these the model's first guess is the prompter's."
    )


def _card(clip: ShownClip, *, threshold: float) -> Card:
    note = Text(f"below {threshold:g}: no entity loss")
    if clip.is_confident:
        note = Text("prompter confident", "correct")
    size = SHARPNESS * SIDE
    strips = [
        Strip(
            [Text("The prompter sees the region alone")],
            erased_frames(clip, side=size),
            bars=_bars(clip, clip.prompter, role="prompter", threshold=threshold),
        ),
        Strip(
            [Text("The model sees frames and caption, and is asked the same")],
            outlined_frames(clip, side=size),
            bars=_bars(clip, clip.model, role="model"),
        ),
    ]
    return Card((Text(f"“{clip.caption}”", "plain"), Text(clip.video_id), note), strips)


def _bars(
    clip: ShownClip, guesses: Sequence[Guess], *, role: Role, threshold: float | None = None
) -> list[Bar]:
    """Bars of the guesses; the threshold is marked in the first."""
    return [
        Bar(
            Text(guess.entity, "correct" if clip.mentions(guess.entity) else "pale"),
            guess.probability,
            role,
            threshold=None if place else threshold,
        )
        for place, guess in enumerate(guesses)
    ]


def best_guesses(
    probabilities: np.ndarray, entities: Sequence[str], *, num_guesses: int = NUM_GUESSES
) -> tuple[Guess, ...]:
    """The most probable entities, best first; of equal ones the first in the list.

    Args:
        probabilities: (K,), one for each entity.
        entities: K of them.
        num_guesses: how many, at most.
    """
    assert len(probabilities) == len(entities), (len(probabilities), len(entities))
    order = np.argsort(-probabilities, kind="stable")[:num_guesses]
    return tuple(Guess(entities[index], float(probabilities[index])) for index in order)


def outlined_frames(clip: ShownClip, *, side: int) -> list[Image.Image]:
    """The frames with the region outlined, ``side`` pixels wide and high."""
    return [_outlined(frame, clip.region) for frame in _scaled(clip.frames, side=side)]


def erased_frames(clip: ShownClip, *, side: int) -> list[Image.Image]:
    """The frames as the prompter gets them, black outside of the region."""
    patch_size = clip.frames.shape[-1] // len(clip.region)
    inside = clip.region.repeat(patch_size, axis=0).repeat(patch_size, axis=1)  # (S, S)
    return _scaled(clip.frames * inside.astype(np.uint8), side=side)


def _scaled(frames: np.ndarray, *, side: int) -> list[Image.Image]:
    pictures = [Image.fromarray(frame) for frame in frames.transpose(0, 2, 3, 1)]
    return [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in pictures]


def _outlined(picture: Image.Image, region: np.ndarray) -> Image.Image:
    """Draw the outline of the region, a box of patches, within the picture."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    patch_size = picture.width / len(region)
    corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (round(patch_size * corner) for corner in corners)
    picture, width = picture.copy(), max(2, round(REGION_WIDTH * picture.width))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=REGION_EDGE, width=width + 1)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=REGION, width=width)
    return picture
