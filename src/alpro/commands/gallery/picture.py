"""A gallery as a picture: cards one below the other, bars on the right of their frames."""

from __future__ import annotations

from PIL import Image, ImageDraw

from alpro.commands.gallery.cards import Bar, Gallery, Line, Role, Strip, Text
from alpro.commands.gallery.fonts import font_of, note_undrawable, shortened

MARGIN = 24  # pixels, as all lengths
TITLE_SIZE, LABEL_SIZE = 19, 15
TITLE_HEIGHT, LABEL_HEIGHT, LEGEND_HEIGHT = 38, 24, 24
ROW_GAP, COLUMN_GAP, CARD_GAP = 8, 26, 18
FRAME_GAP, OUTLINE_WIDTH = 2, 4
MIN_FRAMES_WIDTH = 404  # room for captions
NAME_WIDTH, BAR_WIDTH, NUMBER_WIDTH = 130, 160, 44
BAR_HEIGHT, BAR_STEP = 18, 21
BARS_WIDTH = NAME_WIDTH + BAR_WIDTH + NUMBER_WIDTH
TEXT_GAP = 12
NOTE_SHARE = 0.4  # of a line that a text on its right may take

PAPER = (255, 255, 255)
COLORS: dict[Role, tuple[int, int, int]] = {
    "plain": (28, 32, 38),
    "pale": (98, 106, 116),
    "correct": (22, 150, 72),
    "wrong": (206, 210, 216),
    "prompter": (59, 120, 216),
    "model": (138, 92, 201),
    "region": (214, 66, 16),
}


def draw_gallery(gallery: Gallery) -> Image.Image:
    """Draw all cards and the legend; strips without bars stand side by side.

    Prints a note if no font has some of the characters.
    """
    note_undrawable(gallery.texts())
    # All strips have cells of one size, the largest.
    num_strips = max(len(card.strips) for card in gallery.cards)
    num_bars = max(len(strip.bars) for strip in gallery.strips)
    columns, rows = (1, num_strips) if num_bars else (num_strips, 1)
    frames_width = max(_width(strip, gallery.side) for strip in gallery.strips)
    if columns == 1:
        frames_width = max(frames_width, MIN_FRAMES_WIDTH)
    cell_width = frames_width + (COLUMN_GAP + BARS_WIDTH if num_bars else 0)
    content_height = max(gallery.side + 2 * OUTLINE_WIDTH, num_bars * BAR_STEP)
    cell_height = LABEL_HEIGHT + content_height + ROW_GAP
    card_height = TITLE_HEIGHT + rows * cell_height + CARD_GAP

    width = columns * (cell_width + COLUMN_GAP) - COLUMN_GAP
    legend = [line for text in gallery.legend for line in _wrapped(text, width)]
    height = len(gallery.cards) * card_height + len(legend) * LEGEND_HEIGHT
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    draw, top = ImageDraw.Draw(sheet), MARGIN
    for card in gallery.cards:
        middle = top + TITLE_HEIGHT / 2
        _draw_line(draw, card.title, left=MARGIN, middle=middle, width=width, size=TITLE_SIZE)
        for place, strip in enumerate(card.strips):
            row, column = divmod(place, columns)
            corner = (
                MARGIN + column * (cell_width + COLUMN_GAP),
                top + TITLE_HEIGHT + row * cell_height,
            )
            _draw_strip(sheet, strip, corner, frames_width=frames_width, side=gallery.side)
        top += card_height
    for text in legend:
        _draw_line(draw, [text], left=MARGIN, middle=top + LEGEND_HEIGHT / 2, width=width)
        top += LEGEND_HEIGHT
    return sheet


def _width(strip: Strip, side: int) -> int:
    return len(strip.frames) * (side + FRAME_GAP) - FRAME_GAP + 2 * OUTLINE_WIDTH


def _wrapped(text: Text, width: int) -> list[Text]:
    """Break a text between words into lines that fit a width."""
    lines: list[str] = []
    for word in text.text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font_of(longer, LABEL_SIZE).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return [Text(line, text.role) for line in lines]


def _draw_strip(
    sheet: Image.Image, strip: Strip, corner: tuple[int, int], *, frames_width: int, side: int
) -> None:
    """Draw the caption, below it the frames, and beside these the bars."""
    draw, (left, top) = ImageDraw.Draw(sheet), corner
    middle = top + LABEL_HEIGHT / 2
    _draw_line(draw, strip.caption, left=left, middle=middle, width=frames_width)
    top, inset = top + LABEL_HEIGHT, 0
    if strip.outline is not None:
        end = (left + _width(strip, side) - 1, top + side + 2 * OUTLINE_WIDTH - 1)
        draw.rectangle((left, top, *end), fill=COLORS[strip.outline])
        inset = OUTLINE_WIDTH
    for number, frame in enumerate(strip.frames):
        place = (left + inset + number * (side + FRAME_GAP), top + inset)
        sheet.paste(frame.resize((side, side), Image.Resampling.BOX), place)
    for number, bar in enumerate(strip.bars):
        _draw_bar(draw, bar, left=left + frames_width + COLUMN_GAP, top=top + number * BAR_STEP)


def _draw_bar(draw: ImageDraw.ImageDraw, bar: Bar, *, left: int, top: int) -> None:
    """Draw a name, a bar as long as it is probable, and the number."""
    middle, bottom, start = top + BAR_HEIGHT / 2, top + BAR_HEIGHT - 1, left + NAME_WIDTH
    name, room = (start - TEXT_GAP, middle), NAME_WIDTH - TEXT_GAP
    _draw_text(draw, bar.name, name, room=room, anchor="rm")
    end = start + bar.share * (BAR_WIDTH - 1)
    draw.rectangle((start, top, end, bottom), fill=COLORS[bar.role])
    if bar.threshold is not None:
        mark = start + bar.threshold * (BAR_WIDTH - 1)
        draw.line((mark, top - 2, mark, bottom + 2), fill=COLORS["plain"], width=2)
    number = (left + BARS_WIDTH, middle)
    _draw_text(draw, Text(f"{bar.probability:.2f}"), number, room=NUMBER_WIDTH, anchor="rm")


def _draw_line(
    draw: ImageDraw.ImageDraw,
    line: Line,
    *,
    left: int,
    middle: float,
    width: float,
    size: int = LABEL_SIZE,
) -> None:
    """Draw the first text, of a size, on the left, and the others on the right."""
    first, *others = line
    right = left + width
    for text in reversed(others):
        room = NOTE_SHARE * width
        right -= TEXT_GAP + _draw_text(draw, text, (right, middle), room=room, anchor="rm")
    _draw_text(draw, first, (left, middle), room=right - left, size=size)


def _draw_text(
    draw: ImageDraw.ImageDraw,
    text: Text,
    place: tuple[float, float],
    *,
    room: float,
    size: int = LABEL_SIZE,
    anchor: str = "lm",
) -> float:
    """Draw a text that begins or ends at a place; returns its width."""
    words = shortened(text.text, size=size, room=room)
    font = font_of(words, size)
    draw.text(place, words, fill=COLORS[text.role], font=font, anchor=anchor)
    return font.getlength(words)
