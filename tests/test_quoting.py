"""Names and values in messages."""

from __future__ import annotations

from typing import Any

from alpro.quoting import listed, shortened, shown


def test_values_are_quoted_in_short() -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested] * 10
    for value in (nested, "x" * 10_000, list(range(10_000)), 10**5000, object()):
        assert len(shown(value)) < 1000


def test_texts_are_short_and_printable() -> None:
    assert shortened("ein Bär") == "ein Bär"
    assert shortened("\x1b[31m\ud800") == "\\x1b[31m\\ud800"
    assert shortened("a" * 11, most=10) == "aaaaaaa..."


def test_the_first_of_several_names_are_listed() -> None:
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(["a", "b", "c"], most=2) == "a, b, ..."
    assert listed([]) == ""
