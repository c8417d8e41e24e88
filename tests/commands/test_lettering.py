"""Text of any script in pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alpro.commands.gallery import lettering
from alpro.commands.gallery.lettering import (
    _Face,
    draw_text,
    note_undrawable,
    one_line,
    shortened,
    text_width,
)

SIZE = 19
BOX = "\uffff"


def picture(text: str, **options: Any) -> np.ndarray:
    image = Image.new("L", (400, 40), 255)
    draw_text(ImageDraw.Draw(image), (10, 20), text, size=SIZE, fill=0, **options)  # type: ignore[arg-type]
    return np.asarray(image)


@pytest.fixture
def only_own_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a system without fonts, where the package of fonts is not installed either."""
    caches = (lettering._runs, lettering._face_of)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(lettering, "_system_faces", lambda: ())
    monkeypatch.setattr(lettering, "_own_faces", lambda: (_Face(None),))
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def two_fonts(monkeypatch: pytest.MonkeyPatch, only_own_fonts: None) -> None:  # noqa: ARG001
    """A font of the system that has only some letters, all of them as wide as others."""
    system = _Face(None, 1)
    monkeypatch.setattr(lettering, "_system_faces", lambda: (system,))
    monkeypatch.setattr(
        lettering,
        "_has",
        lambda face, one: one == " " or (one in "дом狗קט" if face == system else one.isascii()),
    )


@pytest.mark.usefixtures("only_own_fonts")
def test_ascii_is_drawn_in_the_own_font() -> None:
    assert (picture("a dog") < 128).any()
    assert lettering._runs("a dog, 12") == (("a dog, 12", _Face(None)),)


@pytest.mark.usefixtures("only_own_fonts")
def test_letters_keep_what_a_font_has_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    plain_of = {"läuft": "lauft", "Łódź": "Lodz", "Straße": "Strase", "e\u0323": "e"}
    for text, plain in plain_of.items():
        assert (picture(text) == picture(plain)).all()
    note_undrawable(["läuft", "a dog"])
    note_undrawable(["a dog"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: no font here has ä; the picture shows plain letters or boxes")
    assert "apt-get install fonts-noto-core fonts-noto-cjk" in line


@pytest.mark.usefixtures("only_own_fonts")
def test_many_missing_characters_are_named_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    note_undrawable(["".join(map(chr, range(0x4E00, 0x4E20)))])
    assert "and 20 more" in capsys.readouterr().err


@pytest.mark.usefixtures("two_fonts")
def test_parts_have_the_font_that_has_them() -> None:
    own, system = _Face(None), _Face(None, 1)
    assert lettering._runs("дом дом") == (("дом дом", system),)
    assert lettering._runs("a дом d") == (("a ", own), ("дом ", system), ("d", own))
    assert lettering._runs("קט a") == (("a", own), ("קט ", system))  # from right to left
    assert lettering._runs("a 犬") == (("a 犬", own),)


@pytest.mark.usefixtures("only_own_fonts")
def test_places_and_widths() -> None:
    left = np.flatnonzero((picture("a dog") < 128).any(axis=0))
    width = text_width("a dog", size=SIZE)
    image = Image.new("L", (400, 40), 255)
    place = (10 + width, 20)
    draw_text(ImageDraw.Draw(image), place, "a dog", size=SIZE, fill=0, from_right=True)  # type: ignore[arg-type]
    right = np.flatnonzero((np.asarray(image) < 128).any(axis=0))
    assert abs(left[0] - right[0]) <= 1
    assert 10 <= left[0] < left[-1] <= 10 + width


@pytest.mark.usefixtures("only_own_fonts")
def test_text_is_cut_to_the_room() -> None:
    text = "a dog runs on the beach"
    assert shortened(text, size=SIZE, room=500) == text
    for room in (20, 60, 100, 150):
        cut = shortened(text, size=SIZE, room=room)
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        assert text_width(cut, size=SIZE) <= room
        longer = text[: len(cut)] + "…"
        assert text_width(longer, size=SIZE) > room or longer[-2] == " "
    text = "q\u0323" * 40
    for room in range(20, 60):
        assert len(shortened(text, size=SIZE, room=room)) % 2 == 1  # no mark is lost
    assert shortened("long", size=SIZE, room=0) == "…"


def test_controls_and_line_breaks_are_taken_out() -> None:
    assert one_line("a\r\n\tb\x00\x1b[31m \u202ec\u2066 e\u0301 \u200d") == "a b[31m c é \u200d"


def test_fonts_of_the_system_are_listed_with_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = (
        "/f/Deja-Bold.ttf|0|20-7e\n/f/NotoSans.ttc|65537|20-7e 4e00 4e10-4eff\n/f/x.pcf.gz|0|20\n"
    )

    class Done:
        stdout = listed.encode()

    monkeypatch.setattr(lettering.subprocess, "run", lambda *_, **__: Done)
    faces = lettering._system_faces.__wrapped__()
    assert [(face.path, face.index) for face in faces] == [
        *(("/f/NotoSans.ttc", 1), ("/f/Deja-Bold.ttf", 0))
    ]
    assert [faces[0].may_have(one) for one in " ~\x7f一\u4e01\u4e10\u4eff\u4f00\x10"] == [
        *(True, True, False, True, False, True, True, False, False)
    ]


def test_without_fontconfig_folders_are_searched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    def absent(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    (tmp_path / "deep").mkdir()
    for name in ("deep/Sans.ttf", "notes.txt", "damaged.otf"):
        (tmp_path / name).write_bytes(b"no font")
    monkeypatch.setattr(lettering.subprocess, "run", absent)
    monkeypatch.setattr(lettering, "_FOLDERS", (str(tmp_path),))
    faces = lettering._system_faces.__wrapped__()
    assert [face.path for face in faces] == [
        *(str(tmp_path / "deep/Sans.ttf"), str(tmp_path / "damaged.otf"))
    ]
    assert [face.has("a") for face in faces] == [False, False]


def test_installed_fonts_draw_latin_letters_with_marks() -> None:
    """Noto Sans of the requirements, or what the system has, instead of plain letters."""
    if lettering._face_of("ä") is None:
        pytest.skip("no font here has ä")
    assert (picture("läuft") != picture("lauft")).any()
    assert (picture("läuft") != picture(f"l{BOX}uft")).any()
