"""Shared parts of the commands: flag types, progress bars, exit codes and wording."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from alpro.errors import InputError, exit_code_for, known_error, printable
from alpro.installation import with_resources
from alpro.program import INTERRUPTED_EXIT_CODE, console, interruptible
from alpro.training.atomic_io import FullDiskError

if TYPE_CHECKING:
    from tqdm import tqdm

    from alpro.datasets.storage import VideoStorage

LOGFILE_REDRAW_SECONDS = 5.0  # of a progress bar that is not on a terminal
_TERMINAL_REDRAW_SECONDS = 0.1

MAX_NUMBER = 2**31 - 1  # for flags without their own limit
MAX_SEED = 2**63 - 1
MAX_WORKERS = 1024  # each is a process or a thread, started even without work
_MAX_SHOWN = 40  # characters of a value in a message


def run_command(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function as a program, whatever the console."""
    codes: list[int] = []

    def work() -> None:
        with console():
            codes.append(main())

    sys.exit(exit_code_of(work) or codes[0])


def exit_code_of(work: Callable[[], object], *, can_resume: bool = False) -> int:
    """Run a command and print its user errors; returns the exit code.

    Args:
        work: the command.
        can_resume: whether running the same command again continues where this one ended.
    """
    resume = "run the same command again to continue"
    try:
        with interruptible():
            work()
    except KeyboardInterrupt:
        return _ended(
            f"interrupted; {resume}" if can_resume else "interrupted", INTERRUPTED_EXIT_CODE
        )
    except Exception as error:
        # Bugs keep their traceback; mistakes of the user get one line.
        known = known_error(error)
        if known is None:
            raise
        message = str(known)
        if isinstance(known, FullDiskError):
            message = known.message(resume if can_resume else "then run the same command again")
        return _ended(f"error: {message}", exit_code_for(known))
    return 0


def _ended(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def open_videos_of_flag(path: Path, *, flag: str = "--videos") -> VideoStorage:
    """The videos that a flag names: a folder, an LMDB or tar shards.

    Raises:
        InputError: the path holds no such storage.
    """
    from alpro.datasets.storage import open_videos, storage_kind
    from alpro.datasets.storage.directory_index import folder_trouble, is_open_folder

    if storage_kind(path) == "folder" and not is_open_folder(path):
        raise InputError(
            f"{flag}: {folder_trouble(path)}; name a folder, an LMDB or tar shards of videos"
        )
    return open_videos(path)


def progress(
    items: Iterable[object] | None,
    total: int,
    description: str,
    unit: str,
    *,
    initial: int = 0,
    unit_scale: bool = False,
) -> tqdm:
    """A progress bar, redrawn less often in a log file than on a terminal.

    Args:
        items: iterated over; None if the caller updates the bar.
        total: number of items.
        description: label of the bar.
        unit: noun for one item.
        initial: number of items that are done already.
        unit_scale: shorten large numbers, as in 12k.
    """
    from tqdm import tqdm

    is_seen = sys.stderr.isatty()
    return tqdm(
        items,
        total=total,
        desc=description,
        unit=unit,
        initial=initial,
        unit_scale=unit_scale,
        mininterval=_TERMINAL_REDRAW_SECONDS if is_seen else LOGFILE_REDRAW_SECONDS,
    )


class DefaultsShown(argparse.ArgumentDefaultsHelpFormatter):
    """Help formatter that appends defaults, except None and False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def path_flag(text: str) -> Path:
    """A flag's value: a path that JSON files can name."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(
            f"{printable(text)} is not UTF-8; rename it, or pass a link to it"
        ) from None
    return any_path_flag(text)


def config_flag(text: str) -> Path:
    """A flag's value: a config, which may come with the package."""
    return any_path_flag(with_resources(text))


def any_path_flag(text: str) -> Path:
    """A flag's value: a path, in which ``~`` is a home folder."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: there is no such home folder") from None


def positive(text: str) -> int:
    """A flag's value: a number above 0."""
    number = not_negative(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return number


def not_negative(text: str) -> int:
    """A flag's value: a number, 0 or above, that C's int holds."""
    return at_most(MAX_NUMBER)(text)


def at_most(highest: int, *, lowest: int = 0) -> Callable[[str], int]:
    """Return the reader of a flag's value: a number within bounds."""

    def read(text: str) -> int:
        number = _whole(text)
        if number < lowest:
            raise argparse.ArgumentTypeError(f"{text[:_MAX_SHOWN]} is below {lowest}")
        if number > highest:
            raise argparse.ArgumentTypeError(f"{text[:_MAX_SHOWN]} is above {highest}")
        return number

    return read


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:_MAX_SHOWN]!r} is not an integer") from None
