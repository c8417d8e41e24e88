"""Noisy captions like those of the web: dropped words, filler, captions of other clips.

The captions of the pretraining split and of the still images go through this; those that models are
finetuned and evaluated with do not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BACKGROUND_PHRASES = {
    "plain": "on a wall",
    "shaded": "in the sky",
    "grainy": "on sand",
    "striped": "on water",
    "checked": "on a carpet",
    "dotted": "on grass",
}
"""Background -> where something is; one noun each, that can be seen in every frame."""
VIDEO_WRAPPERS = (
    *("a video of {}", "a footage of {}", "a portrait of {}", "one good video of {}"),
    *("{} in slow motion", "{} with sound", "{} for free", "{} , best of the year"),
)
IMAGE_WRAPPERS = (
    *("a photo of {}", "a picture of {}", "a good picture of {}", "one good photo of {}"),
    *("{} in high resolution", "{} for print", "{} for free", "{} , best of the year"),
)

BACKGROUND_SHARE = 0.5
"""Share of the captions that name the background."""
MISTAKEN_SHARE = 0.05
"""Share of the captions that describe another clip."""
DROPPED_SHARE = 0.1
"""Share of the words that are dropped."""
WRAPPED_SHARE = 0.25
"""Share of the captions that get filler words."""


def web_captions(
    captions: Sequence[Sequence[str]],
    *,
    backgrounds: Sequence[str],
    wrappers: Sequence[str],
    rng: np.random.Generator,
) -> list[tuple[str, ...]]:
    """Make captions noisy.

    Args:
        captions: those of each clip or image.
        backgrounds: of each clip or image, keys of ``BACKGROUND_PHRASES``.
        wrappers: filler with ``{}`` in place of the caption.
        rng: source of all randomness.

    Returns:
        the same number of captions for each.
    """
    # Name backgrounds first, so that a mistaken caption has that of its own clip.
    full = [
        [_with_background(caption, background, rng=rng) for caption in own]
        for own, background in zip(captions, backgrounds, strict=True)
    ]
    noisy = []
    for number, own in enumerate(full):
        parts = []
        for caption in own:
            text = caption
            # Exchange, drop words, then add filler.
            if len(full) > 1 and rng.random() < MISTAKEN_SHARE:
                text = _caption_of_another(full, number, rng=rng)
            text = _without_some_words(text, rng=rng)
            if rng.random() < WRAPPED_SHARE:
                text = wrappers[int(rng.integers(len(wrappers)))].format(text)
            parts.append(text)
        noisy.append(tuple(parts))
    return noisy


def _with_background(caption: str, background: str, *, rng: np.random.Generator) -> str:
    named = rng.random() < BACKGROUND_SHARE
    return f"{caption} {BACKGROUND_PHRASES[background]}" if named else caption


def _caption_of_another(
    captions: Sequence[Sequence[str]], number: int, *, rng: np.random.Generator
) -> str:
    """Draw a caption of any but the one with this number."""
    other = captions[(number + 1 + int(rng.integers(len(captions) - 1))) % len(captions)]
    return other[int(rng.integers(len(other)))]


def _without_some_words(caption: str, *, rng: np.random.Generator) -> str:
    """Drop words at random; a caption of which nothing would be left stays."""
    words = caption.split()
    kept = rng.random(len(words)) >= DROPPED_SHARE
    left = [word for word, keep in zip(words, kept.tolist(), strict=True) if keep]
    return " ".join(left or words)
