"""A picture of clips with their masked regions and guesses."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from alpro.commands.gallery.clip_cards import (
    NUM_GUESSES,
    Guess,
    ShownClip,
    erased_frames,
    outlined_frames,
)
from alpro.commands.gallery.drawing import (
    BAR_GAP,
    BAR_HEIGHT,
    CORRECT,
    INK,
    LABEL_SIZE,
    MARGIN,
    PALE,
    PANEL_WIDTH,
    PAPER,
    TEXT_GAP,
    TILE_GAP,
    TITLE_SIZE,
    draw_bar,
    paste_frames,
)
from alpro.commands.gallery.lettering import draw_text, note_undrawable, shortened, text_width

FRAME_SIDE = 100  # pixels, as all of these
TITLE_HEIGHT = 36
LABEL_HEIGHT = 26
PANEL_GAP = 26
HALF_GAP = 6
CLIP_GAP = 24
LEGEND_HEIGHT = 40
MIN_FRAMES_WIDTH = 404  # room for what stands above

HALF_HEIGHT = LABEL_HEIGHT + max(FRAME_SIDE, NUM_GUESSES * (BAR_HEIGHT + BAR_GAP)) + HALF_GAP
CLIP_HEIGHT = TITLE_HEIGHT + 2 * HALF_HEIGHT + CLIP_GAP
LEGEND = "Green entities stand in the caption. Confident: the prompter's best entity reaches {:g}."
ID_SHARE = 0.3  # of the room for id and caption that the id may take
LABEL_OF_PROMPTER = "The prompter sees the region alone"
LABEL_OF_MODEL = "The model sees frames and caption, and is asked the same"
PROMPTER, MODEL = (59, 120, 216), (138, 92, 201)

Color = tuple[int, int, int]


def draw_sheet(clips: Sequence[ShownClip], *, threshold: float) -> Image.Image:
    """Draw one block per clip: above what the prompter sees and guesses, below the model.

    Args:
        clips: with their guesses.
        threshold: of the best entity's probability, for a clip to count.
    """
    note_undrawable(text for clip in clips for text in clip.texts)
    num_frames = max(len(clip.frames) for clip in clips)
    frames_width = max(num_frames * (FRAME_SIDE + TILE_GAP) - TILE_GAP, MIN_FRAMES_WIDTH)
    panel = MARGIN + frames_width + PANEL_GAP
    height = 2 * MARGIN + len(clips) * CLIP_HEIGHT - CLIP_GAP + LEGEND_HEIGHT
    sheet = Image.new("RGB", (panel + PANEL_WIDTH + MARGIN, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, clip in enumerate(clips):
        top = MARGIN + number * CLIP_HEIGHT
        _draw_title(draw, clip, top=top, width=sheet.width, threshold=threshold)
        top += TITLE_HEIGHT
        _draw_label(draw, LABEL_OF_PROMPTER, left=MARGIN, top=top)
        paste_frames(
            sheet, erased_frames(clip, side=FRAME_SIDE), left=MARGIN, top=top + LABEL_HEIGHT
        )
        _draw_guesses(draw, clip, clip.prompter, left=panel, top=top + LABEL_HEIGHT, color=PROMPTER)
        top += HALF_HEIGHT
        _draw_label(draw, LABEL_OF_MODEL, left=MARGIN, top=top)
        frames = outlined_frames(clip, side=FRAME_SIDE)
        paste_frames(sheet, frames, left=MARGIN, top=top + LABEL_HEIGHT)
        _draw_guesses(draw, clip, clip.model, left=panel, top=top + LABEL_HEIGHT, color=MODEL)
    bottom = sheet.height - MARGIN - LABEL_HEIGHT
    _draw_label(draw, LEGEND.format(threshold), left=MARGIN, top=bottom)
    return sheet


def _draw_title(
    draw: ImageDraw.ImageDraw, clip: ShownClip, *, top: int, width: int, threshold: float
) -> None:
    middle = top + TITLE_HEIGHT / 2
    note, ink = f"below {threshold:g}: no entity loss", PALE
    if clip.is_confident:
        note, ink = "prompter confident", CORRECT
    right = (width - MARGIN, middle)
    draw_text(draw, right, note, size=LABEL_SIZE, fill=ink, from_right=True)
    room = width - 2 * MARGIN - text_width(note, size=LABEL_SIZE) - PANEL_GAP
    name = shortened(clip.video_id, size=LABEL_SIZE, room=ID_SHARE * room)
    room -= text_width(name, size=LABEL_SIZE) + TEXT_GAP
    title = shortened(f"“{clip.caption}”", size=TITLE_SIZE, room=room, end="…”")
    draw_text(draw, (MARGIN, middle), title, size=TITLE_SIZE, fill=INK)
    left = MARGIN + text_width(title, size=TITLE_SIZE) + TEXT_GAP
    draw_text(draw, (left, middle), name, size=LABEL_SIZE, fill=PALE)


def _draw_label(draw: ImageDraw.ImageDraw, text: str, *, left: int, top: int) -> None:
    middle = (left, top + LABEL_HEIGHT / 2)
    draw_text(draw, middle, text, size=LABEL_SIZE, fill=PALE)


def _draw_guesses(
    draw: ImageDraw.ImageDraw,
    clip: ShownClip,
    guesses: Sequence[Guess],
    *,
    left: int,
    top: int,
    color: Color,
) -> None:
    """Draw the bars; the names of entities that stand in the caption are green."""
    for place, guess in enumerate(guesses[:NUM_GUESSES]):
        bar_top = top + place * (BAR_HEIGHT + BAR_GAP)
        ink = CORRECT if clip.mentions(guess.entity) else PALE
        name, probability = guess.entity, guess.probability
        draw_bar(draw, name, probability, left=left, top=bar_top, color=color, ink=ink)
