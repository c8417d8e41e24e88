"""What the tools' commands share: values of flags, counts in words, and how a command ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from src.errors import FAILURE_EXIT_CODE, USER_ERROR_EXIT_CODE, InputError, RunError


def exit_code_of(work: Callable[[], object]) -> int:
    """Do a command's work, or say what is wrong; returns the exit code."""
    try:
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR_EXIT_CODE
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILURE_EXIT_CODE
    return 0


def positive(text: str) -> int:
    """A flag's value: a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def not_negative(text: str) -> int:
    """A flag's value: a number, 0 or above."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things: ``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
