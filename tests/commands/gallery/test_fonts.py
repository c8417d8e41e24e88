"""Fonts of texts in pictures."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from alpro.commands.gallery import fonts
from alpro.commands.gallery.fonts import _PILLOW, font_of, note_undrawable, one_line, shortened

SIZE = 19


@pytest.fixture
def no_other_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a system without fonts, where the package of fonts is not installed either."""
    fonts._face_of.cache_clear()
    monkeypatch.setattr(fonts, "_noto_sans", list)
    monkeypatch.setattr(fonts, "_system_face", lambda _: [])
    yield
    fonts._face_of.cache_clear()


@pytest.mark.usefixtures("no_other_fonts")
def test_characters_without_a_font_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    note_undrawable(["läuft", "a dog"])
    note_undrawable(["a dog"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: no font here has ä; the picture shows boxes")
    assert "apt-get install fonts-noto-core fonts-noto-cjk" in line
    note_undrawable(["".join(map(chr, range(0x4E00, 0x4E20)))])
    assert "and 20 more" in capsys.readouterr().err


@pytest.mark.usefixtures("no_other_fonts")
def test_a_text_has_the_first_font_that_has_most_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    noto, system = ("noto", 0), ("system", 1)
    letters = {_PILLOW: "ab", noto: "abä", system: "a犬"}
    monkeypatch.setattr(fonts, "_noto_sans", lambda: [noto])
    monkeypatch.setattr(fonts, "_system_face", lambda _: [system])
    monkeypatch.setattr(fonts, "_has", lambda face, one: one in letters[face])
    expected = {"ab": _PILLOW, "aä": noto, "犬": system, "ä犬": noto, "狗": _PILLOW}
    assert {text: fonts._face_of(text) for text in expected} == expected


@pytest.mark.usefixtures("no_other_fonts")
def test_text_is_cut_to_the_room() -> None:
    text = "a dog runs on the beach"
    assert shortened(text, size=SIZE, room=500) == text
    for room in (20, 60, 100, 150):
        cut = shortened(text, size=SIZE, room=room)
        assert cut.endswith("…")
        assert text.startswith(cut[:-1])
        font = font_of(text, SIZE)
        assert font.getlength(cut) <= room
        longer = text[: len(cut)] + "…"
        assert font.getlength(longer) > room or longer[-2] == " "
    assert shortened(f"“{text}”", size=SIZE, room=60).endswith("…”")
    assert shortened("long", size=SIZE, room=0) == "…"


def test_controls_and_line_breaks_are_taken_out() -> None:
    assert one_line("a\r\n\tb\x00\x1b[31m  c\ud800 e\u0301") == "a b[31m c é"


@pytest.mark.parametrize("answer", [b"", b"/f/absent.ttf|0", b"/f/x.ttf|", b"no font"])
def test_answers_of_fontconfig_without_a_font(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    done = SimpleNamespace(stdout=answer)
    monkeypatch.setattr(fonts.subprocess, "run", lambda *_, **__: done)
    assert fonts._system_face.__wrapped__("ä") == []


def test_a_system_without_fontconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(fonts.subprocess, "run", absent)
    assert fonts._system_face.__wrapped__("ä") == []


def test_installed_fonts_have_latin_letters_with_marks() -> None:
    """Noto Sans of the requirements, or one of the system."""
    fonts._face_of.cache_clear()
    if not fonts._noto_sans():
        pytest.skip("fontpkg-noto-sans is not installed")
    assert fonts._missing("läuft Ἄнд", fonts._face_of("läuft Ἄнд")) == []
