"""The exception that means "the user's input is at fault", and how a script ends on it."""

import os
import sys
from collections.abc import Callable

USER_ERROR_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130  # 128 + SIGINT, as shells tell it


class InputError(ValueError):
    """A mistake in what the user gave us: a file, a key, a flag, a folder.

    The message names the file, key and value, and says what to do. Entry scripts print it without a
    traceback and exit with ``USER_ERROR_EXIT_CODE``.
    """


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main function; the user's mistakes end it with one message and exit code 2.

    Ctrl-C ends it with one line too, which adds what the ``KeyboardInterrupt`` has to say.
    Of several processes under ``horovodrun``, the message names the one at fault.
    """
    try:
        main()
    except InputError as error:
        sys.stderr.write(f"error{_process()}: {error}\n")
        sys.exit(USER_ERROR_EXIT_CODE)
    except KeyboardInterrupt as interrupt:
        sys.stderr.write("; ".join([f"interrupted{_process()}", *map(str, interrupt.args)]) + "\n")
        sys.exit(INTERRUPTED_EXIT_CODE)


def _process() -> str:
    """This process's place among several, as the launcher tells it."""
    alone = os.environ.get("HOROVOD_SIZE", "1") == "1"
    return "" if alone else f" (rank {os.environ.get('HOROVOD_RANK', 'unknown')})"
