"""Names and values of users as messages quote them: printable, short, and few."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

MAX_SHOWN = 60  # characters of a text and entries of a list


def shortened(text: str, *, most: int = MAX_SHOWN) -> str:
    """Return a text that can be printed in a line of a message."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else ascii(cut)[1:-1]


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Return the first of some names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def shown(value: Any) -> str:
    """Return the representation of a value, shortened, whatever it is."""
    short = reprlib.Repr()
    short.maxlevel = 2  # a list that holds itself many times over is written in no time
    short.maxlist = short.maxstring = short.maxother = MAX_SHOWN
    try:
        return short.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return f"<{type(value).__name__}>"
