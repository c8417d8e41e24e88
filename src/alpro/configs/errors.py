"""Config mistakes, and the one exception that reports them all."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alpro.errors import InputError

COMMAND_LINE = "command line"
"""Place of mistakes in flags."""

_SIMILARITY = 0.7  # difflib ratio of a misspelt key: "task" is no misspelling of "betas" (0.67)
_LINE_WIDTH = 100  # columns of an error message
_VALUE_WIDTH = 70  # columns of a quoted value; longer ones are cut in the middle
_MAX_SHOWN = 20  # problems that a message lists


@dataclass(frozen=True)
class ConfigIssue:
    """One mistake: its place, its description and a remedy."""

    place: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        message = " ".join(part for part in (f"{self.place}: {self.text}", self.remedy) if part)
        # Bytes of the command line that are no UTF-8 could not be written to a log.
        return message.encode(errors="backslashreplace").decode()


class ConfigError(InputError):
    """All mistakes in a configuration, reported together."""

    def __init__(self, problems: Iterable[ConfigIssue]) -> None:
        self.errors = [str(problem) for problem in problems]
        count = len(self.errors)
        if count == 1:
            super().__init__(self.errors[0])
            return
        # Number several mistakes, and fold each to the width of a terminal.
        width = len(str(min(count, _MAX_SHOWN)))
        numbered = [
            textwrap.fill(
                error,
                width=_LINE_WIDTH,
                initial_indent=f"  {number:>{width}}. ",
                subsequent_indent=" " * (width + 4),
                break_long_words=False,
                break_on_hyphens=False,
            )
            for number, error in enumerate(self.errors[:_MAX_SHOWN], start=1)
        ]
        rest = [f"  ... and {count - _MAX_SHOWN} more"] if count > _MAX_SHOWN else []
        super().__init__("\n".join([f"the configuration has {count} errors:", *numbered, *rest]))


def shorten(value: Any) -> str:
    """Return a value as JSON, shortened in the middle if it is long."""
    return shortened(json.dumps(value, ensure_ascii=False, default=str))


def shortened(text: str) -> str:
    """Return a text, shortened in the middle if it is long."""
    if len(text) <= _VALUE_WIDTH:
        return text
    half = (_VALUE_WIDTH - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def closest_match(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, or None."""
    if len(name) > _VALUE_WIDTH:
        return None
    # A similar spelling first, then a longer name that contains this one.
    names = sorted(known)
    if close := difflib.get_close_matches(name, names, n=1, cutoff=_SIMILARITY):
        return close[0]
    return next((other for other in names if f"_{name}_" in f"_{other}_"), None)
