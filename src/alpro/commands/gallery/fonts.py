"""A font for a text of any script: Pillow's, Noto Sans, or one of the system.

Pillow's has ASCII; Noto Sans (package `fontpkg-noto-sans`) Latin, Greek and Cyrillic letters.
"""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from alpro.errors import printable

Font = ImageFont.FreeTypeFont
Face = tuple[str, int]
"""File of a font, and its index in there."""

_PILLOW: Face = ("", 0)

_REMEDY = "apt-get install fonts-noto-core fonts-noto-cjk fonts-symbola, or your system's fonts"
_FONTCONFIG_SECONDS = 20
_TRIAL_SIZE = 20  # pixels, at which glyphs are compared
_NO_CHARACTER = "\uffff"  # drawn as a font draws everything that it lacks
_HIDDEN = ("Cc", "Cs", "Co", "Cn")  # Unicode's categories without a glyph
_INVISIBLE = ("Cf", "Zs")
_NUM_NAMED = 12  # characters, in a note


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    joined = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(one for one in joined if unicodedata.category(one) not in _HIDDEN)


def font_of(text: str, size: int) -> Font:
    """The first font that has all of a text, or most of it, of a size in pixels."""
    return _load(_face_of(text), size)


@lru_cache(maxsize=4096)
def _face_of(text: str) -> Face:
    faces = [_PILLOW, *_noto_sans()]
    if all(_missing(text, face) for face in faces):
        faces += _system_face("".join(sorted(set(text))))
    return min(faces, key=lambda face: len(_missing(text, face)))


@lru_cache(maxsize=256)
def _load(face: Face, size: int) -> Font:
    path, index = face
    if face != _PILLOW:
        return ImageFont.truetype(path, size, index=index)
    font = ImageFont.load_default(size)
    assert isinstance(font, Font)
    return font


def _noto_sans() -> list[Face]:
    spec = find_spec("fontpkg_noto_sans")
    if spec is None or spec.origin is None:
        return []
    files = Path(spec.origin).parent.glob("files/NotoSans*.ttf")
    return [(str(path), 0) for path in files if "Italic" not in path.name]


@lru_cache(maxsize=256)
def _system_face(characters: str) -> list[Face]:
    """The system's font with the most of some characters; none without fontconfig."""
    charset = " ".join(f"{ord(one):x}" for one in characters)
    command = ["fc-match", "--format", "%{file}|%{index}", f"sans:scalable=true:charset={charset}"]
    try:
        answer = subprocess.run(
            command, capture_output=True, timeout=_FONTCONFIG_SECONDS, check=True
        ).stdout.decode()
        path, _, index = answer.rpartition("|")
        face = (path, int(index) & 0xFFFF)  # the upper bits number variants of a variable font
        _load(face, _TRIAL_SIZE)
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return [face]


def _missing(text: str, face: Face) -> list[str]:
    """Characters that a font lacks, each once."""
    return [one for one in dict.fromkeys(text) if not _has(face, one)]


@lru_cache(maxsize=4096)
def _has(face: Face, character: str) -> bool:
    if unicodedata.category(character) in _INVISIBLE:
        return True
    font = _load(face, _TRIAL_SIZE)
    mask, lacking = font.getmask(character), font.getmask(_NO_CHARACTER)
    return mask.size != lacking.size or bytes(mask) != bytes(lacking)


def shortened(text: str, *, size: int, room: float) -> str:
    """A text in one line, cut to the room there is with an ellipsis."""
    text = one_line(text)
    font = font_of(text, size)
    if font.getlength(text) <= room:
        return text
    end = "…”" if text.endswith("”") else "…"
    fits = bisect_right(range(len(text)), room, key=lambda n: font.getlength(text[:n] + end))
    return text[: max(fits - 1, 0)].rstrip() + end


def note_undrawable(texts: Iterable[str]) -> None:
    """Print a note that names the characters that are drawn as boxes, if there are any."""
    lines = map(one_line, texts)
    missing = list(dict.fromkeys(one for line in lines for one in _missing(line, _face_of(line))))
    if missing:
        more = f" and {len(missing) - _NUM_NAMED} more" if len(missing) > _NUM_NAMED else ""
        named = printable(" ".join(missing[:_NUM_NAMED])) + more
        message = f"note: no font here has {named}; the picture shows boxes. Install one: {_REMEDY}"
        print(message, file=sys.stderr)
