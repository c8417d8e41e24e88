"""Text of any script in pictures: each part in a font that has its characters.

The fonts are Pillow's own, which has little more than ASCII; Noto Sans, if the package
`fontpkg-noto-sans` is there: Latin, Greek and Cyrillic letters; and those of the system.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

from alpro.commands.cli import printable

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
Color = tuple[int, int, int]

_REMEDY = "apt-get install fonts-noto-core fonts-noto-cjk fonts-symbola, or your system's fonts"
_PACKAGE = "fontpkg_noto_sans"
_FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts"),
)
"""Where fonts are if the system has no fontconfig, which knows."""
_FONT_ENDINGS = (".ttf", ".otf", ".ttc")
_FONTCONFIG_SECONDS = 20
_TRIAL_SIZE = 20  # pixels, at which a font's characters are looked at
_NO_CHARACTER = "\uffff"  # which all fonts draw as what they lack
_UNUSUAL = ("bold", "italic", "oblique", "mono", "condensed", "light", "thin", "black")
_CONTROLS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # of direction
_HIDDEN = ("Cc", "Cs", "Co", "Cn")  # Unicode's categories of what is no character to be shown
_NUM_NAMED = 12  # characters that a note names
_LATIN_LETTER = re.compile(r"LATIN (SMALL|CAPITAL) LETTER (?:\w+ )??([A-Z]{1,2})(?: WITH .*)?")
_JOINED = ("Mn", "Me", "Mc", "Cf")  # Unicode's categories of what belongs to the character before


@dataclass(frozen=True, slots=True)
class _Face:
    """A font of any size."""

    path: str | None
    """None: Pillow's own."""
    index: int = 0
    """In a file of several."""
    starts: tuple[int, ...] = field(default=(), compare=False)
    """First characters of the ranges that fontconfig says it has; none where that is unknown."""
    ends: tuple[int, ...] = field(default=(), compare=False)
    """Last characters of these."""

    def may_have(self, character: str) -> bool:
        """Return whether the character is in one of the ranges, as far as they are known."""
        at = bisect_right(self.starts, ord(character)) - 1
        return not self.starts or (at >= 0 and ord(character) <= self.ends[at])

    def has(self, character: str) -> bool:
        """Return whether it draws the character, and not what stands for all that it lacks."""
        font = _trial_font(self)
        if font is None:
            return False
        mask = font.getmask(character)
        lacking = font.getmask(_NO_CHARACTER)
        return mask.size != lacking.size or bytes(mask) != bytes(lacking)


@lru_cache(maxsize=64)
def load_font(face: _Face, size: int) -> Font:
    """The font of a face, of a size in pixels."""
    if face.path is None:
        return ImageFont.load_default(size)
    return ImageFont.truetype(face.path, size, index=face.index)


@cache
def _trial_font(face: _Face) -> ImageFont.FreeTypeFont | None:
    """The font to look for characters in; None for one of fixed size, as of coloured emoji."""
    try:
        font = load_font(face, _TRIAL_SIZE)
    except OSError:
        return None
    return font if isinstance(font, ImageFont.FreeTypeFont) else None


@cache
def _own_faces() -> tuple[_Face, ...]:
    """Fonts of installed packages, best first."""
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [path for folder in folders for path in sorted(Path(folder).glob("files/*.ttf"))]
    return (_Face(None), *(_Face(str(path)) for path in files if "Italic" not in path.name))


@cache
def _system_faces() -> tuple[_Face, ...]:
    """Fonts of the system, plain ones first."""
    command = ["fc-list", "--format", "%{file}|%{index}|%{charset}\\n"]
    try:
        listed = subprocess.run(
            command, capture_output=True, timeout=_FONTCONFIG_SECONDS, check=True
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        listed = "".join(f"{path}|0|\n" for path in _font_files())
    faces = []
    for line in listed.splitlines():
        path, index, charset = line.rsplit("|", 2)
        if index.isdecimal() and path.lower().endswith(_FONT_ENDINGS):
            ranges = [part.split("-") for part in charset.split()]
            starts, ends = (tuple(int(part[at], 16) for part in ranges) for at in (0, -1))
            faces.append(_Face(path, int(index) & 0xFFFF, starts, ends))
    return tuple(sorted(faces, key=lambda face: (_oddness(face), face.path, face.index)))


def _font_files() -> Iterator[str]:
    for folder in _FOLDERS:
        for parent, _, names in os.walk(os.path.expanduser(folder)):
            yield from (os.path.join(parent, name) for name in names)


def _oddness(face: _Face) -> int:
    name = Path(face.path or "").name.lower()
    return sum(word in name for word in _UNUSUAL) + ("sans" not in name)


@lru_cache(maxsize=4096)
def _has(face: _Face, character: str) -> bool:
    if character.isspace() or unicodedata.category(character) == "Cf":
        return True  # nothing to be seen
    return face.has(character)


def _faces_with(character: str) -> Iterator[_Face]:
    for faces in (_own_faces, _system_faces):
        for face in faces():
            if face.may_have(character) and _has(face, character):
                yield face


@lru_cache(maxsize=4096)
def _face_of(character: str) -> _Face | None:
    return next(_faces_with(character), None)


@lru_cache(maxsize=4096)
def _runs(text: str) -> tuple[tuple[str, _Face], ...]:
    """Parts of a text, from left to right, with their fonts; one if a font has all of it."""
    characters = [one for one in dict.fromkeys(text) if _face_of(one) is not None]
    rarest = max(characters, key=lambda one: (not _has(_Face(None), one), ord(one)), default=" ")
    for face in _faces_with(rarest):
        if all(_has(face, one) for one in characters):
            return ((_drawable(text, face), face),)
    runs: list[tuple[str, _Face]] = []
    for one in text:
        face = _face_of(one) or _Face(None)
        if runs and (_is_neutral(one) or one in runs[-1][0]) and _has(runs[-1][1], one):
            face = runs[-1][1]
        if runs and face == runs[-1][1]:
            runs[-1] = (runs[-1][0] + _drawable(one, face), face)
        else:
            runs.append((_drawable(one, face), face))
    return tuple(reversed(runs) if _goes_left(text) else runs)


def _drawable(text: str, face: _Face) -> str:
    """The text with plain letters in place of Latin ones that the font lacks."""
    return "".join(one if _has(face, one) else _plain_letter(one) for one in text)


def _plain_letter(character: str) -> str:
    """The letter without its marks, as its name tells; other characters as they are."""
    if unicodedata.category(character) in _JOINED:
        return ""
    name = _LATIN_LETTER.fullmatch(unicodedata.name(character, ""))
    if name is None:
        return character
    return name[2].lower() if name[1] == "SMALL" else name[2]


def _is_neutral(character: str) -> bool:
    """Return whether it goes with the characters before it: a space, a mark, punctuation."""
    category = unicodedata.category(character)
    return category in _JOINED or category[0] in "ZP"


def _goes_left(text: str) -> bool:
    """Return whether the first letter is of a script that is written from right to left."""
    letters = (unicodedata.bidirectional(one) for one in text)
    return next((kind for kind in letters if kind in ("L", "R", "AL")), "L") != "L"


def one_line(text: str) -> str:
    """A text without line breaks and without characters that control more than it."""
    joined = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(
        one for one in joined if one not in _CONTROLS and unicodedata.category(one) not in _HIDDEN
    )


def text_width(text: str, *, size: int) -> float:
    """The width of a text in pixels."""
    return sum(load_font(face, size).getlength(part) for part, face in _runs(one_line(text)))


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    *,
    size: int,
    fill: Color,
    from_right: bool = False,
) -> None:
    """Draw a text in one line.

    Args:
        draw: on what.
        place: its left end, halfway up.
        text: line breaks are spaces.
        size: of the font, in pixels.
        fill: the colour.
        from_right: `place` is its right end.
    """
    left, middle = place
    runs = _runs(one_line(text))
    if from_right:
        left -= text_width(text, size=size)
    own = load_font(_Face(None), size)
    assert isinstance(own, ImageFont.FreeTypeFont)
    ascent, descent = own.getmetrics()
    for part, face in runs:
        font = load_font(face, size)
        draw.text((left, middle + (ascent - descent) / 2), part, fill=fill, font=font, anchor="ls")
        left += font.getlength(part)


def shortened(text: str, *, size: int, room: float, end: str = "…") -> str:
    """Cut the text to the room there is, ``end`` marking the cut."""
    text = one_line(text)
    if text_width(text, size=size) <= room:
        return text
    lengths = range(len(text))
    fits = bisect_left(lengths, True, key=lambda n: text_width(text[:n] + end, size=size) > room)
    cut = max(fits - 1, 0)
    while cut and unicodedata.category(text[cut]) in _JOINED:
        cut -= 1
    return text[:cut].rstrip() + end


def note_undrawable(texts: Iterable[str]) -> None:
    """Print a note that names the characters that no font here has, if there are any."""
    characters: Sequence[str] = [
        one for one in dict.fromkeys("".join(map(one_line, texts))) if _face_of(one) is None
    ]
    if not characters:
        return
    named = " ".join(characters[:_NUM_NAMED])
    more = f" and {len(characters) - _NUM_NAMED} more" if len(characters) > _NUM_NAMED else ""
    message = f"no font here has {printable(named)}{more}; the picture shows plain letters or boxes"
    print(f"note: {message}. Install one: {_REMEDY}", file=sys.stderr)
